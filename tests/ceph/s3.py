"""A few requests to an S3 store, signed (version 4) with the standard library, for what rclone has no command."""

from __future__ import annotations

import hashlib
import hmac
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

REGION = "default"


@dataclass(frozen=True)
class Store:
    """A store as one user sees it; `host` is address:port, plain HTTP."""

    host: str
    key: str
    secret: str

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"", **headers: str
    ) -> tuple[int, str]:
        """Status and body of one request. Headers are given with _ in place of -."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        sent = {"host": self.host, "x-amz-content-sha256": digest, "x-amz-date": moment}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        names = ";".join(sorted(sent))
        question = "&".join(
            f"{name}={urllib.parse.quote(value, safe='')}" for name, value in sorted((query or {}).items())
        )
        lines = [f"{name}:{sent[name]}" for name in sorted(sent)]
        canonical = "\n".join([method, urllib.parse.quote(path), question, *lines, "", names, digest])
        scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (moment[:8], REGION, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        url = f"http://{self.host}{urllib.parse.quote(path)}{f'?{question}' if question else ''}"
        asked = urllib.request.Request(url, data=body or None, method=method, headers=sent)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - http, to a host of the lab
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
