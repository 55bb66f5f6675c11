"""What a compromised client may do with its own credentials on the append-only server. Runs on a test host as root.

Prints one JSON object: what was tried, and the server's HTTP status for each.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

SECRETS = "/etc/holdfast/secrets/vault.repository"
AUTHORITY = "/etc/holdfast/repositories/vault.pem"


def main(other: str) -> None:
    """Try the operations with this client's own user and password; `other` is another client's user."""
    with open(SECRETS, encoding="utf-8") as file:
        location = urllib.parse.urlsplit(file.read().strip()[len("rest:") :])
    user, password = (urllib.parse.unquote(part or "") for part in (location.username, location.password))
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    host = location.netloc.rpartition("@")[2]
    context = ssl.create_default_context(cafile=AUTHORITY)

    def status(method: str, path: str, body: bytes | None = None) -> int:
        request = urllib.request.Request(f"https://{host}/{path}", data=body, method=method)
        request.add_header("Authorization", f"Basic {token}")
        request.add_header("Accept", "application/vnd.x.restic.rest.v2")
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310 - the lab's own server
                answered.append(answer.read())
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    answered: list[bytes] = []
    result = {"read own config": status("GET", f"{user}/config")}
    result["list own snapshots"] = status("GET", f"{user}/snapshots/")
    snapshot = json.loads(answered[-1])[0]["name"]
    result["delete own snapshot"] = status("DELETE", f"{user}/snapshots/{snapshot}")
    result["overwrite own snapshot"] = status("POST", f"{user}/snapshots/{snapshot}", b"x")
    result["delete own config"] = status("DELETE", f"{user}/config")
    result["overwrite own config"] = status("POST", f"{user}/config", b"x")
    result["read the other client's config"] = status("GET", f"{other}/config")
    result["read it by a path trick"] = status("GET", f"{user}/..%2f{other}/config")
    result["list own snapshots again"] = status("GET", f"{user}/snapshots/")
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
