# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the whole fleet, and its table."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils import _outcome
from ansible_collections.holdfast.backup.plugins.module_utils._program import text
from ansible_collections.holdfast.backup.plugins.plugin_utils._fields import NAME
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import said, shorten
from ansible_collections.holdfast.backup.plugins.plugin_utils._rclone_tls import WITHOUT_TLS

UNREACHED = "not asked"
# Shown in red for ever after.
NO_ESCROW = "has no escrow: when this host is gone, nobody can restore"
ERASABLE = "whoever takes over this host can erase its history"
ELSEWHERE = "is managed elsewhere: what is backed up, its own administrator sees"
UNLIMITED = "limits no client's rclone and sftp repositories: one that fills up their directory stops the others"
OUTCOMES = (_outcome.OK, _outcome.INCOMPLETE, _outcome.FAILED, _outcome.NEVER_RAN)
WIDEST = 40


def _text(value: t.Any) -> bool:
    return isinstance(value, str)


def _number(value: t.Any) -> bool:
    # Not NaN, which is no JSON, nor what no clock and no disk can reach.
    return isinstance(value, (int, float)) and abs(value) < 1e18


def _flag(value: t.Any) -> bool:
    return isinstance(value, bool)


def _texts(value: t.Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _numbers(value: t.Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


# What `holdfast status --json` says. One client that says something else must not spoil the answer for the whole fleet.
ANSWER: dict[str, t.Callable[[t.Any], bool]] = {"holdfast": _text, "restic": _text, "time": _text}
UNIT: dict[str, t.Callable[[t.Any], bool]] = {
    **dict.fromkeys(("unit", "job", "repository", "engine", "access", "escrow", "outcome", "reason", "message"), _text),
    **dict.fromkeys(("started", "ended", "last_ok", "snapshot", "next", "repository_state"), _text),
    **dict.fromkeys(("duration_seconds", "exit_status", "percent_done", "age_seconds"), _number),
    **dict.fromkeys(("told", "loaded", "running"), _flag),
    **dict.fromkeys(("missing", "dumps_failed"), _texts),
    "dumps": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
    "summary": _numbers,
}


def fleet_state(
    hosts: dict[str, t.Any], answers: dict[str, t.Any], stale: dict[str, t.Any] | None = None
) -> dict[str, t.Any]:
    """The fleet as JSON: for each client its run units, and what about its protection deserves attention.

    ``hosts`` is the model, ``answers`` the standard output of ``holdfast status --json`` by inventory name, null where a
    client gave none. ``stale`` are repositories that clients have secrets of and do not declare, where that was looked at.
    """
    return {
        "format": 1,
        "hosts": {
            host: _client(entry, answers.get(host), (stale or {}).get(host))
            for host, entry in sorted(hosts.items())
            if entry["client"] is not None
        },
    }


def _client(entry: dict[str, t.Any], answer: t.Any, stale: t.Any) -> dict[str, t.Any]:
    status = _answered(answer)
    client = entry["client"]
    known = {unit["unit"]: unit for unit in (status or {}).get("units", [])}
    units = []
    for unit in client["units"]:
        seen = known.get(unit["unit"])
        base = {"unit": unit["unit"], "job": unit["job"], "repository": unit["repository"]}
        units.append({**seen, **base} if seen else {**base, "outcome": "never_ran" if status else UNREACHED})
    return {
        "backup_id": entry["backup_id"],
        "answered": status is not None,
        "holdfast": (status or {}).get("holdfast"),
        "restic": (status or {}).get("restic"),
        "time": (status or {}).get("time"),
        "units": units,
        "notes": [ELSEWHERE] if entry.get("elsewhere") else notes(client) + _kept(stale),
    }


def _kept(stale: t.Any) -> list[str]:
    """What there is to say of secrets that are left; a client may name anything."""
    names = [each for each in stale if isinstance(each, str) and NAME.match(each)] if isinstance(stale, list) else []
    return [
        f"{name} is declared no more, and its secrets are kept: site -e backup_prune_secrets=true removes what the escrow has"
        for name in names
    ]


def _answered(answer: t.Any) -> dict[str, t.Any] | None:
    """What a client said, None where it is not the answer of ``holdfast status``: a client may say anything."""
    try:
        status = json.loads(answer) if isinstance(answer, str) and answer else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(status, dict) or not isinstance(status.get("units"), list):
        return None
    units = [
        {**_plain(unit, UNIT), "outcome": unit["outcome"] if unit.get("outcome") in OUTCOMES else UNREACHED}
        for unit in status["units"]
        if isinstance(unit, dict) and isinstance(unit.get("unit"), str)
    ]
    return {**_plain(status, ANSWER), "units": units}


def _plain(said: dict[str, t.Any], fields: dict[str, t.Callable[[t.Any], bool]]) -> dict[str, t.Any]:
    """The known fields, null where one is not what it should be."""
    return {name: _utf8(said[name]) if fits(said[name]) else None for name, fits in fields.items() if name in said}


def _utf8(value: t.Any) -> t.Any:
    """The same without halves of characters, which no callback can write."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_utf8(each) for each in value]
    return {_utf8(key): each for key, each in value.items()} if isinstance(value, dict) else value


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
            found.append(f"{name} {NO_ESCROW}")
        if repository["access"] == "s3":
            found.append(f"{name}: the client holds credentials that can delete; {ERASABLE}")
        elif repository["access"] != "local" and not repository["append_only"]:
            found.append(f"{name} is not append-only: {ERASABLE}")
        if repository.get("proxy_duties"):
            found.append(
                f"{name}: its proxy {repository['server']} holds credentials of the store and has other duties"
                f" ({', '.join(repository['proxy_duties'])}), each a way to them"
            )
        if repository.get("proxy_without_tls"):
            found.append(f"{name}: the store behind its proxy {repository['server']} {WITHOUT_TLS}")
        if repository.get("unlimited_beside_others"):
            found.append(f"{repository['server']} {UNLIMITED}")
        if client["escrow"]["mode"] == "controller":
            found.append(f"{name}: the escrow lies in plaintext on the controller")
        if repository["tls"] == "off" and repository["access"] == "s3":
            found.append(f"{name} {WITHOUT_TLS}")
        elif repository["tls"] == "off":
            found.append(f"{name} is served without TLS: its REST password crosses the network")
    if any(unit["keep"] for unit in client["units"]):
        found.append("retention: not applied")
    # What is of a server is said once.
    return list(dict.fromkeys(found))


def table(state: dict[str, t.Any]) -> str:
    """The fleet's table, a line for each run unit, and the notes below it."""
    rows = []
    remarks: dict[str, list[str]] = {}
    for host, client in state["hosts"].items():
        for unit in client["units"]:
            age = unit.get("age_seconds")
            rows.append(
                (
                    text.one_line(host),
                    unit["job"],
                    unit["repository"],
                    unit["outcome"],
                    _cell(unit.get("reason"), WIDEST),
                    text.span(age) if isinstance(age, (int, float)) and unit.get("last_ok") else "never",
                    _cell(unit.get("snapshot"), 8),
                    _cell(unit.get("next"), 16).replace("T", " "),
                )
            )
        if not client["answered"] and ELSEWHERE not in client["notes"]:
            remarks.setdefault("gave no answer; is it in this run (--limit), and provisioned?", []).append(
                text.one_line(host)
            )
        for note in client["notes"]:
            remarks.setdefault(note, []).append(text.one_line(host))
    below = [f"{', '.join(hosts)}: {note}" for note, hosts in remarks.items()]
    if not rows:
        return "\n".join(["no run unit in the fleet", *below])
    header = ("HOST", "JOB", "REPOSITORY", "OUTCOME", "REASON", "LAST OK", "SNAPSHOT", "NEXT")
    return "\n".join([text.table(header, rows), *([""] if below else []), *below])


def _cell(value: t.Any, width: int) -> str:
    """What a client said as one short line: it must not move the cursor of whoever reads the table."""
    return text.one_line(value[:width]) if isinstance(value, str) and value else "-"


def search(state: dict[str, t.Any], query: str) -> t.Any:
    """The answer of a JMESPath expression over the fleet's state. Raises ValueError that names the cure."""
    try:
        import jmespath
    except ImportError:
        raise ValueError("query needs the Python package jmespath on the controller: pip install jmespath") from None
    try:
        answer = jmespath.search(query, state)
        json.dumps(answer)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"query = {shorten(query)}: is not a JMESPath expression ({said(error)})."
            " See https://jmespath.org; the whole state is shown by -e format=json"
        ) from None
    return answer
