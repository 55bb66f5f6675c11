# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which escrow bundles a server that holds the repositories has no copy of yet."""

from __future__ import annotations

import base64
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._escrow import AGE_MAGIC
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered, _state

MODE = "age"


def missing(
    server: str,
    hosts: dict[str, t.Any],
    there: t.Mapping[str, t.Sequence[str]],
    hostvars: t.Mapping[str, t.Any],
    state_dir: str,
    *,
    check_mode: bool = False,
) -> tuple[dict[str, str], list[str]]:
    """The content of each bundle, in base64, by the name of its copy; and what is wrong with those that are damaged.

    ``hosts`` is the model of the fleet, ``there`` the copies that the server has of each repository, ``hostvars`` what this run made: what that will be
    in the state directory is named in check mode, with an empty content. Only what is encrypted with age leaves the controller.
    What is damaged is damaged of one client, which is not to keep the others from having theirs.
    """
    found, damaged = {}, []
    for host, identity, repository in _served(hosts[server]["server"]):
        client = hosts[host]["client"]
        if not client or client["escrow"]["mode"] != MODE:
            continue
        try:
            kept = set(_state.bundles(state_dir, host, repository))
        except ValueError as error:
            damaged.append(_told(error, server))
            continue
        born = _delivered.born(hostvars, host, repository).get("bundle_name") if check_mode else None
        copies = there.get(f"{identity}--{repository}", ())
        for bundle in kept | ({born} if born else set()):
            if bundle in copies or not (bundle.endswith(f".{MODE}") or bundle == UNBORN):
                continue
            try:
                content = _state.read_bundle(state_dir, host, repository, bundle) or b""
                if bundle in kept and not content.startswith(AGE_MAGIC):
                    raise ValueError(f"the escrow bundle {bundle} of {repository} of {host} is not encrypted by age")
            except ValueError as error:
                damaged.append(_told(error, server))
                continue
            found[f"{identity}--{repository}/{bundle}"] = base64.b64encode(content).decode("ascii")
    return dict(sorted(found.items())), sorted(damaged)


def _told(error: ValueError, server: str) -> str:
    return f"{error}: bring it back, from version control say; {server} gets no copy of it"


def _served(server: dict[str, t.Any]) -> set[tuple[str, str, str]]:
    """Host, backup_id and name of each repository on a server."""
    over_rest = {(user["host"], user["backup_id"], user["repository"]) for user in server["users"]}
    return over_rest | {
        (account["host"], account["backup_id"], key["repository"])
        for account in server["ssh"]["accounts"]
        for key in account["keys"]
    }
