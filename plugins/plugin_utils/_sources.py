# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that several clients come from."""

from __future__ import annotations

import ipaddress
import typing as t

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


def shared_sources(accounts: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The declared sources that overlap one of another account, and those of the server itself, where tunnels end."""
    found: dict[str, tuple[Network, set[str]]] = {}
    for account in accounts:
        for key in account.get("keys") or []:
            for source in key.get("from") or []:
                found.setdefault(source, (ipaddress.ip_network(source, strict=False), set()))[1].add(account["name"])
    return sorted(source for source, (network, names) in found.items() if _is_shared(network, names, found.values()))


def _is_shared(network: Network, names: set[str], sources: t.Iterable[tuple[Network, set[str]]]) -> bool:
    if network.is_loopback:
        return True
    return len(names.union(*(others for other, others in sources if _overlap(network, other)))) > 1


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
