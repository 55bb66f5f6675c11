"""What a client's own credentials are tried for, on a test host as root: python3 attack.py OTHER_USER.

Prints the HTTP status of every attack (`refused`) and of the legitimate requests before and after them (`controls`).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import ssl
import sys
import urllib.parse

SECRETS = "/etc/holdfast/secrets/vault.repository"
AUTHORITY = "/etc/holdfast/repositories/vault.pem"
TYPES = ("keys", "data", "index", "snapshots")


def main(other: str) -> None:
    """Try everything that would remove, change or read what is not this client's to remove, change or read."""
    with open(SECRETS, encoding="utf-8") as file:
        location = urllib.parse.urlsplit(file.read().strip()[len("rest:") :])
    user, password = (urllib.parse.unquote(part or "") for part in (location.username, location.password))
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    context = ssl.create_default_context(cafile=AUTHORITY)

    def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        # http.client sends the path as it is: nothing normalises a trick away.
        connection = http.client.HTTPSConnection(location.hostname or "", location.port, timeout=20, context=context)
        headers = {"Authorization": f"Basic {token}", "Accept": "application/vnd.x.restic.rest.v2"}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def controls(when: str) -> None:
        for kind in ("config", *(f"{each}/{names[each]}" for each in TYPES)):
            result["controls"][f"{when}: read {kind}"] = ask("GET", f"/{user}/{kind}")[0]
        content = os.urandom(32)
        name = hashlib.sha256(content).hexdigest()
        # What append-only leaves: writing and removing a lock, with the same methods that are refused elsewhere.
        result["controls"][f"{when}: write a lock"] = ask("POST", f"/{user}/locks/{name}", content)[0]
        result["controls"][f"{when}: remove it"] = ask("DELETE", f"/{user}/locks/{name}")[0]

    result: dict[str, dict[str, int]] = {"controls": {}, "refused": {}}
    names: dict[str, str] = {}
    for each in TYPES:
        status, content = ask("GET", f"/{user}/{each}/")
        result["controls"][f"list {each}"] = status
        names[each] = json.loads(content)[0]["name"]
    controls("before")
    attempts = [
        (method, path, b"x" if method in ("POST", "PUT") else None)
        for kind in ("config", *(f"{each}/{names[each]}" for each in TYPES))
        for method in ("DELETE", "POST", "PUT", "PATCH")
        for path in (f"/{user}/{kind}",)
    ]
    attempts += [("DELETE", path, None) for path in (f"/{user}/", f"/{user}", f"/{user}/data/", "/", f"/{user}/keys/")]
    attempts += [("POST", f"/{other}/?create=true", b""), ("POST", f"/{user}-new/?create=true", b"")]
    for path in (
        f"/{other}/config",
        f"/{other}/snapshots/",
        f"/{user}/../{other}/config",
        f"/{user}/..%2f{other}/config",
        f"/{user}/%2e%2e/{other}/config",
        f"/{user}%2f..%2f{other}/config",
        f"//{other}/config",
        f"/{user}//../{other}//config",
        f"/./{other}/config",
        f"/%2e/{other}/config",
        f"/{user}/data/../../{other}/config",
        f"/{user}/keys/..%2f..%2f..%2f{other}%2fconfig",
        f"/{user}/data/../../../../etc/passwd",
        f"/{user}/..\\{other}\\config",
    ):
        attempts += [("GET", path, None), ("DELETE", path, None), ("POST", path, b"x")]
    attempts += [
        (method, f"/{user}/locks/{trick}{names['snapshots']}", None)
        for method in ("DELETE",)
        for trick in ("../snapshots/", "..%2fsnapshots%2f", "%2e%2e/snapshots/", "/../snapshots/")
    ]
    for method, path, body in attempts:
        status = ask(method, path, body)[0]
        if status in (301, 302, 307, 308):
            # The server sends the client to the path in its plain form: follow, with the method as it is.
            status = ask(method, os.path.normpath(urllib.parse.unquote(path)).replace("//", "/"), body)[0]
        result["refused"][f"{method} {path}"] = status
    controls("after")
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
