# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the whole fleet, and its table."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._program import text

UNREACHED = "not asked"


def fleet_state(hosts: dict[str, t.Any], answers: dict[str, t.Any]) -> dict[str, t.Any]:
    """The fleet as JSON: for each client its run units, and what about its protection deserves attention.

    ``hosts`` is the model, ``answers`` the standard output of ``holdfast status --json`` by inventory name, null where a
    client gave none.
    """
    return {
        "format": 1,
        "hosts": {
            host: _client(entry, answers.get(host)) for host, entry in sorted(hosts.items()) if entry["client"] is not None
        },
    }


def _client(entry: dict[str, t.Any], answer: str | None) -> dict[str, t.Any]:
    try:
        status = json.loads(answer) if answer else None
    except ValueError:
        status = None
    client = entry["client"]
    known = {unit["unit"]: unit for unit in (status or {}).get("units", [])}
    units = []
    for unit in client["units"]:
        seen = known.get(unit["unit"])
        base = {"unit": unit["unit"], "job": unit["job"], "repository": unit["repository"]}
        units.append({**base, **seen} if seen else {**base, "outcome": "never_ran" if status else UNREACHED})
    return {
        "backup_id": entry["backup_id"],
        "answered": status is not None,
        "holdfast": (status or {}).get("holdfast"),
        "restic": (status or {}).get("restic"),
        "time": (status or {}).get("time"),
        "units": units,
        "notes": notes(client),
    }


def notes(client: dict[str, t.Any]) -> list[str]:
    """What about a client's protection the report has to say, whatever its runs say."""
    found = []
    if not client["units"]:
        found.append("no job: nothing of this host is backed up")
    for repository in client["repositories"]:
        name = repository["name"]
        if repository["access"] == "local":
            found.append(f"{name} is on the host itself: a start, not a backup")
        elif client["escrow"]["mode"] == "none":
            found.append(f"{name} has no escrow: when this host is gone, nobody can restore")
        if client["escrow"]["mode"] == "controller":
            found.append(f"{name}: the escrow lies in plaintext on the controller")
        if repository["tls"] == "off":
            found.append(f"{name} is served without TLS: its REST password crosses the network")
    if any(unit["keep"] for unit in client["units"]):
        found.append("retention: not applied")
    return found


def table(state: dict[str, t.Any]) -> str:
    """The fleet's table, a line for each run unit, and the notes below it."""
    rows, remarks = [], []
    for host, client in state["hosts"].items():
        for unit in client["units"]:
            rows.append(
                (
                    host,
                    unit["job"],
                    unit["repository"],
                    unit["outcome"],
                    unit.get("reason") or "-",
                    text.span(unit.get("age_seconds")) if unit.get("last_ok") else "never",
                    (unit.get("snapshot") or "-")[:8],
                    (unit.get("next") or "-")[:16].replace("T", " "),
                )
            )
        if not client["answered"]:
            remarks.append(f"{host}: gave no answer; is it provisioned?")
        remarks += [f"{host}: {note}" for note in client["notes"]]
    if not rows:
        return "\n".join(["no run unit in the fleet", *remarks])
    header = ("HOST", "JOB", "REPOSITORY", "OUTCOME", "REASON", "LAST OK", "SNAPSHOT", "NEXT")
    return "\n".join([text.table(header, rows), *([""] if remarks else []), *remarks])


def search(state: dict[str, t.Any], query: str) -> t.Any:
    """The answer of a JMESPath expression over the fleet's state. Raises ValueError that names the cure."""
    try:
        import jmespath
    except ImportError:
        raise ValueError("query needs the Python package jmespath on the controller: pip install jmespath") from None
    try:
        return jmespath.search(query, state)
    except jmespath.exceptions.JMESPathError as error:
        raise ValueError(
            f"query = {query!r}: is not a JMESPath expression ({' '.join(str(error).split())})."
            " See https://jmespath.org; the whole state is shown by -e format=json"
        ) from None
