# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the clients' addresses are shared."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils._sources import shared_sources


def account(name: str, *sources: t.Any) -> dict[str, t.Any]:
    keys = [{"repository": f"r{number}", "from": each} for number, each in enumerate(sources)]
    return {"name": f"bk-{name}", "backup_id": name, "keys": keys}


@pytest.mark.parametrize(
    ("accounts", "exempt"),
    [
        ([], []),
        # Nobody shares it, and nobody but this client would be shut out: of several repositories, too.
        ([account("web1", ["192.0.2.7"], ["192.0.2.7"]), account("web2", ["192.0.2.8"])], []),
        (
            [account("web1", ["192.0.2.7", "2001:db8::/64"]), account("web2", None, ["2001:db8::/64"])],
            ["2001:db8::/64"],
        ),
        # Whoever has a tunnel that ends here comes from there.
        ([account("web1", ["::1", "127.0.0.1"]), {"name": "bk-web2", "backup_id": "web2"}], ["127.0.0.1", "::1"]),
        ([account("web1", ["127.0.0.0/8", "::1/128", "10.0.127.1"])], ["127.0.0.0/8", "::1/128"]),
        # Behind one router, in other words.
        (
            [
                account("web1", ["192.0.2.7"]),
                account("web2", ["192.0.2.0/24", "::/0"]),
                account("web3", ["198.51.100.1"]),
            ],
            ["192.0.2.0/24", "192.0.2.7"],
        ),
    ],
)
def test_only_shared_addresses_are_exempt_from_penalties(accounts: list[t.Any], exempt: list[str]) -> None:
    assert shared_sources(accounts) == exempt
