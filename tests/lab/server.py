"""Serve one directory over HTTP on several addresses: server.py DIRECTORY PORT ADDRESS…"""

from __future__ import annotations

import functools
import http.server
import os
import pwd
import socket
import sys
import threading


class Server(http.server.ThreadingHTTPServer):
    """A server on one address of either family."""

    allow_reuse_address = True

    def __init__(self, address: str, port: int, directory: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
        super().__init__((address, port), handler)


def main() -> None:
    """Bind, give up root, serve."""
    directory, port, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    servers = [Server(address, port, directory) for address in addresses]
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
