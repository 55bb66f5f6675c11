# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The password of a rest-server, when a new one is on its way: which of the two does the server take today?"""

from __future__ import annotations

import base64
import dataclasses
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from .. import _secrets
from .definition import Definition, Rest
from .host import Host
from .text import say

PROBE_TIMEOUT = 10


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Credentials go to the declared server only."""

    def redirect_request(self, *_arguments: Any, **_keywords: Any) -> None:
        return None


def settle(host: Host, definition: Definition) -> str | None:
    """Make the password that the server takes the current one. Returns None, or why no password will do.

    A server that does not answer is left to restic, which tries for longer.
    """
    rest = definition.rest
    if rest is None:
        return None
    path = host.path(definition.identity_file)
    try:
        text = path.read_text(encoding="utf-8")
        identity = _secrets.Identity.parse(text)
    except (OSError, _secrets.SecretsError) as error:
        return f"{definition.identity_file} cannot be used: {error}"
    current, following = identity.rest_current, identity.rest_next
    if current is None or following is None or probe(definition, rest, current.password) is not False:
        return None
    answer = probe(definition, rest, following.password)
    if answer is False:
        return "the server takes neither the current nor the next REST password of this host; run the site playbook"
    if answer is None:
        return None
    # The location first: should the second write not happen, the next run finds `next` accepted again.
    location = _secrets.rest_location(rest.url, rest.user, following.password) + "\n"
    host.write(definition.repository_file, location.encode("utf-8"), mode=0o400)
    if path.read_text(encoding="utf-8") == text:
        promoted = dataclasses.replace(identity, rest_current=following, rest_next=None)
        host.write(definition.identity_file, promoted.render().encode("utf-8"), mode=0o400)
    # Else a playbook wrote it meanwhile, and what it knows of the escrow must not be lost.
    say("the server takes the next REST password: it is the current one from now on")
    return None


def probe(definition: Definition, rest: Rest, password: str) -> bool | None:
    """Whether the server takes the password; None when that cannot be known."""
    url = rest.url[len("rest:") :].rstrip("/") + "/config"
    login = base64.b64encode(f"{rest.user}:{password}".encode()).decode("ascii")
    request = urllib.request.Request(url, method="HEAD", headers={"Authorization": f"Basic {login}"})  # noqa: S310 - http or https, as the definition was checked
    context = ssl.create_default_context(cafile=definition.environment.get("RESTIC_CACERT"))
    # Python 3.13 sets it, and trusts no CA without keyUsage then, as `openssl req -x509` makes them; restic does.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(_proxies(definition.environment, url)),
        urllib.request.HTTPSHandler(context=context),
        _NoRedirect(),
    )
    try:
        with opener.open(request, timeout=PROBE_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        # 404 is the answer to a known user whose repository is not there yet.
        return {401: False, 404: True}.get(error.code)
    except (OSError, ValueError):
        return None


def _proxies(environment: dict[str, str], url: str) -> dict[str, str]:
    lower = {name.lower(): value for name, value in environment.items()}
    parts = urllib.parse.urlsplit(url)
    # The function reads its second argument, which the type stubs do not know of.
    bypass: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if bypass(parts.netloc, {"no": lower.get("no_proxy", "")}):
        return {}
    proxy = lower.get(f"{parts.scheme}_proxy")
    return {parts.scheme: proxy} if proxy else {}
