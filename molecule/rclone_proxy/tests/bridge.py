"""Each connection to a port of 127.0.0.1 becomes standard input and output of a command: HTTP/2 with what speaks it so."""

from __future__ import annotations

import socket
import subprocess
import sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        connection, _address = server.accept()
        subprocess.Popen(sys.argv[2:], stdin=connection.fileno(), stdout=connection.fileno())
        connection.close()
