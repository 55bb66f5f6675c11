# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's table, of answers that may be anything."""

from __future__ import annotations

import builtins
import json
import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _report

UNITS = [
    {"unit": "system--vault", "job": "system", "repository": "vault", "keep": ["--keep-last=3"]},
    {"unit": "db--vault", "job": "db", "repository": "vault", "keep": []},
]
SEEN = {
    "unit": "system--vault",
    "job": "system",
    "repository": "vault",
    "outcome": "failed",
    "reason": "locked",
    "last_ok": "2026-11-20T02:00:00Z",
    "age_seconds": 7200,
    "snapshot": "0123456789abcdef",
    "next": "2026-11-22T02:00:00Z",
    "dumps": {"pg": "0123456789abcdef"},
}


def hosts(**changed: t.Any) -> dict[str, t.Any]:
    client = {
        "units": UNITS,
        "repositories": [{"name": "vault", "access": "rest", "tls": "private", "append_only": True}],
        "escrow": {"mode": "age"},
        **changed,
    }
    return {
        "web1": {"backup_id": "web1", "client": client, "server": None},
        "vault1": {"backup_id": None, "client": None, "server": {}},
    }


def answer(*units: t.Any, **more: t.Any) -> str:
    return json.dumps({"format": 1, "holdfast": "0.1.0", "restic": "0.18.0", "time": "now", "units": units, **more})


def state(text: t.Any, **changed: t.Any) -> dict[str, t.Any]:
    return _report.fleet_state(hosts(**changed), {"web1": text})


def test_a_client_that_answered() -> None:
    found = state(answer(SEEN))
    assert list(found["hosts"]) == ["web1"]
    client = found["hosts"]["web1"]
    assert (client["answered"], client["holdfast"], client["restic"], client["time"]) == (
        True,
        "0.1.0",
        "0.18.0",
        "now",
    )
    assert [unit["outcome"] for unit in client["units"]] == ["failed", "never_ran"]
    assert client["notes"] == ["retention: not applied"]
    lines = _report.table(found).splitlines()
    assert lines[0].split() == ["HOST", "JOB", "REPOSITORY", "OUTCOME", "REASON", "LAST", "OK", "SNAPSHOT", "NEXT"]
    assert lines[1].split() == [
        "web1",
        "system",
        "vault",
        "failed",
        "locked",
        "2",
        "h",
        "01234567",
        "2026-11-22",
        "02:00",
    ]
    assert lines[2].split() == ["web1", "db", "vault", "never_ran", "-", "never", "-", "-"]
    assert lines[3:] == ["", "web1: retention: not applied"]


@pytest.mark.parametrize(
    "text", [None, "", "no json", "[]", "5", "null", '"x"', "{}", '{"units": 5}', "[" * 100000, 5, ["x"], "{" * 10]
)
def test_a_client_that_gave_no_answer(text: t.Any) -> None:
    found = state(text)
    assert [unit["outcome"] for unit in found["hosts"]["web1"]["units"]] == ["not asked"] * 2
    assert "web1: gave no answer" in _report.table(found)


def test_a_hostile_client() -> None:
    bad = {
        **SEEN,
        "job": "other",
        "repository": {"x": 1},
        "outcome": "\x1b[2J",
        "reason": "\x1b[31mfine\n" * 100,
        "age_seconds": "x",
        "snapshot": 5,
        "next": ["x"],
    }
    found = state(answer(5, None, {"unit": 5}, {"x": 1}, bad, {**SEEN, "unit": "not-declared"}))
    units = found["hosts"]["web1"]["units"]
    assert [(unit["job"], unit["repository"]) for unit in units] == [("system", "vault"), ("db", "vault")]
    table = _report.table(found)
    assert all(line.isprintable() for line in table.splitlines())
    assert len(table.splitlines()) == 5
    assert "not-declared" not in table


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age_seconds", "10"),
        ("age_seconds", "9" * 400),
        ("age_seconds", "NaN"),
        ("age_seconds", "-1e999"),
        ("summary", '{"files_new": NaN}'),
        ("message", "[" * 400 + "]" * 400),
        ("missing", "[5]"),
        ("running", '"yes"'),
        ("more", '"x"'),
    ],
)
def test_one_client_does_not_spoil_the_answer_for_the_fleet(field: str, value: str) -> None:
    seen = json.dumps({**SEEN, field: "@"}).replace('"@"', value)
    found = state(f'{{"units": [{seen}], "time": {value}}}')
    assert "system" in _report.table(found)
    json.dumps(found, indent=2, allow_nan=False)
    unit = found["hosts"]["web1"]["units"][0]
    assert unit["outcome"] == "failed"
    assert unit.get(field) == (10 if value == "10" else None)
    assert _report.search(found, "max(hosts.*.units[] | [?age_seconds].age_seconds)") in (10, 7200, None)


def test_half_a_character_can_be_written() -> None:
    half = "\\ud800"
    found = state(
        f'{{"units": [{json.dumps(SEEN)[:-1]}, "message": "{half}", "missing": ["/x{half}"], "summary": {{"{half}": 1}}}}]}}'
    )
    unit = found["hosts"]["web1"]["units"][0]
    assert (unit["message"], unit["missing"], unit["summary"]) == (half, [f"/x{half}"], {half: 1})
    json.dumps(found, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"units": []}, "no job: nothing of this host is backed up"),
        (
            {"repositories": [{"name": "l", "access": "local", "tls": None}]},
            "l is on the host itself: a start, not a backup",
        ),
        ({"escrow": {"mode": "none"}}, "vault has no escrow: when this host is gone, nobody can restore"),
        ({"escrow": {"mode": "controller"}}, "vault: the escrow lies in plaintext on the controller"),
        (
            {"repositories": [{"name": "v", "access": "rest", "tls": "off", "append_only": True}]},
            "v is served without TLS: its REST password crosses the network",
        ),
        (
            {"repositories": [{"name": "v", "access": "sftp", "tls": None, "append_only": False}]},
            "v is not append-only: whoever takes over this host can erase its history",
        ),
        (
            {"repositories": [{"name": "v", "access": "s3", "tls": None, "append_only": False}]},
            "v: the client holds credentials that can delete; whoever takes over this host can erase its history",
        ),
        (
            {"repositories": [{"name": "v", "access": "s3", "tls": "off", "append_only": False}]},
            "v is dialled without TLS: whoever is on the way can answer in the store's place",
        ),
    ],
)
def test_notes(changed: dict[str, t.Any], note: str) -> None:
    assert note in state(None, **changed)["hosts"]["web1"]["notes"]


def test_an_empty_fleet() -> None:
    assert _report.table(_report.fleet_state({}, {})) == "no run unit in the fleet"
    assert "no job" in _report.table(state(answer(), units=[]))


def test_queries() -> None:
    found = state(answer(SEEN))
    assert _report.search(found, "hosts.*.units[] | [?outcome!='ok'].unit") == ["system--vault", "db--vault"]
    assert _report.search(found, "nothing") is None


@pytest.mark.parametrize(
    "query", ["hosts[", "nope(@)", "abs('x')", "&hosts", "sort(hosts.web1.units)", "(" * 20000, "", "'"]
)
def test_bad_queries(query: str) -> None:
    with pytest.raises(ValueError, match="is not a JMESPath expression") as caught:
        _report.search(state(answer(SEEN)), query)
    assert len(str(caught.value)) < 1000


def test_a_missing_jmespath_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        if name == "jmespath":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install jmespath"):
        _report.search({}, "x")


def test_a_note_of_several_hosts_is_one_line() -> None:
    client = {"units": [], "notes": ["retention: not applied"], "answered": True}
    lines = _report.table({"hosts": {"db1": client, "web1": client}}).splitlines()
    assert lines[-1] == "db1, web1: retention: not applied"


def test_secrets_that_are_left_are_told() -> None:
    told = "old is declared no more, and its secrets are kept: site -e backup_prune_secrets=true removes what the escrow has"
    found = _report.fleet_state(hosts(), {"web1": None}, {"web1": ["old"]})
    assert told in found["hosts"]["web1"]["notes"]
    assert f"web1: {told}" in _report.table(found)
    # A client may say anything.
    without = _report.fleet_state(hosts(), {"web1": None})
    for said in ([], ["a\x1b[2J", 7, None], "old", 7, None, {"old": 1}):
        assert _report.fleet_state(hosts(), {"web1": None}, {"web1": said}) == without
