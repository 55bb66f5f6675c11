# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is on the network between a client and its server."""

from __future__ import annotations

import pytest

from .fleet_side import Protected


def logins(protected: Protected) -> int:
    """How often the server let web1 in over SSH since it booted."""
    accepted = "journalctl --sync; journalctl -q -b -o cat -g 'Accepted publickey for bk-web1' | wc -l"
    return int(protected.sh("vault1", accepted))


@pytest.mark.parametrize("repository", ["proxy", "archive"])
def test_no_host_key_is_trusted_on_first_use(protected: Protected, repository: str) -> None:
    """A client that has lost its pin talks to nobody, and learns no other."""
    pin = f"/etc/holdfast/ssh/{repository}.known_hosts"
    before = logins(protected)
    assert protected.ran("web1", repository) == "ok"
    known = logins(protected)
    assert known > before
    protected.sh("web1", f"cp -p {pin} /root/pin && : >{pin}")
    try:
        assert protected.ran("web1", repository) == "failed"
        said = protected.run("web1", f"{' '.join(protected.dial(repository))}; test $? = 255")
        assert (said.rc, "Host key verification failed" in said.stderr) == (0, True)
        assert logins(protected) == known
        assert protected.sh("web1", f"cat {pin}") == ""
    finally:
        protected.sh("web1", f"cp -p /root/pin {pin}")
    assert protected.ran("web1", repository) == "ok"
