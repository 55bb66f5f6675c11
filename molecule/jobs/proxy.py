"""A forward proxy for HTTP that writes the target of each request into a file. Arguments: port and file.

Whatever host a request names is this one: only behind the proxy there is such a name.
"""

import http.client
import http.server
import sys
import urllib.parse

PORT, LOG = int(sys.argv[1]), sys.argv[2]


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes a request on."""

    protocol_version = "HTTP/1.1"

    def forward(self) -> None:
        """Ask the server that the request names, and answer what it says."""
        url = urllib.parse.urlsplit(self.path)
        with open(LOG, "a", encoding="utf-8") as stream:
            stream.write(f"{self.command} {self.path}\n")
        body = self.content()
        server = http.client.HTTPConnection("127.0.0.1", url.port or 80, timeout=30)
        target = urllib.parse.urlunsplit(("", "", url.path, url.query, ""))
        ours = ("proxy-connection", "transfer-encoding", "content-length")
        server.request(self.command, target, body, {k: v for k, v in self.headers.items() if k.lower() not in ours})
        answer = server.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def content(self) -> bytes:
        """What the request brings; restic's `init` sends it in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_HEAD = do_POST = do_DELETE = forward

    def log_message(self, *unused: object) -> None:
        """Say nothing."""


http.server.ThreadingHTTPServer(("", PORT), Proxy).serve_forever()
