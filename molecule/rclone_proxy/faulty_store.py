"""Stands in front of an S3 store and answers in its place with the errors of real ones. Runs on a test host.

    faulty_store.py PORT STORE_PORT FAULT_FILE LOG_FILE

The log has a line for each request: method and path, as they came. The fault file says what goes wrong: nothing, or
`CODE NAME METHOD,METHOD… [TIMES]`, say `503 SlowDown PUT,POST 3` (then all is well again), or `hang 0 METHOD,METHOD…`,
which never answers.
"""

from __future__ import annotations

import http.client
import http.server
import socket
import sys
import threading
import time
from pathlib import Path

PORT, STORE, FAULTS, LOG = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
LOCK = threading.Lock()


def log(line: str) -> None:
    """Note a request."""
    with LOCK, LOG.open("a") as stream:
        stream.write(f"{line}\n")


def fault(method: str) -> tuple[str, str] | None:
    """Status and name of the error that this request gets; counts those that are to stop."""
    with LOCK:
        words = FAULTS.read_text().split() if FAULTS.exists() else []
        if not words or method not in words[2].split(","):
            return None
        if len(words) > 3:
            left = int(words[3]) - 1
            FAULTS.write_text(" ".join([*words[:3], str(left)]) if left > 0 else "")
        return words[0], words[1]


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes everything on, headers as they are, since they are signed."""

    protocol_version = "HTTP/1.1"

    def any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        log(f"{self.command} {self.path}")
        wrong = fault(self.command)
        if wrong is not None and wrong[0] == "hang":
            time.sleep(600)
        if wrong is not None:
            text = f"<?xml version='1.0'?><Error><Code>{wrong[1]}</Code><Message>injected</Message></Error>".encode()
            return self.answer(int(wrong[0]), [("Content-Type", "application/xml")], text)
        store = http.client.HTTPConnection("127.0.0.1", STORE, timeout=60)
        store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            store.putheader(name, value)
        store.endheaders(body)
        answer = store.getresponse()
        content = answer.read()
        headers = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection")
        ]
        return self.answer(answer.status, headers, content)

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _value in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in names and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = any

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


Server(("::", PORT), Handler).serve_forever()
