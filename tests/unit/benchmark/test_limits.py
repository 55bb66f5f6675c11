# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which figures the benchmarks judge, by which limits, and how they end."""

from __future__ import annotations

import subprocess
import sys
import typing as t

import pytest

from tests.benchmark import __main__ as everything
from tests.benchmark import site, unit
from tests.benchmark.limits import LIMITS, Verdict


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_more_than_its_limit_is_told_at_the_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict()
    said = verdict.of({name: LIMITS[name]})
    assert f"<= {LIMITS[name]:g}" in said
    assert "too much" not in said
    assert verdict.end() == 0
    assert "too much" in verdict.of({name: LIMITS[name] * 1.01})
    # Measuring goes on, and what is good afterwards makes nothing good.
    verdict.of({name: 0})
    assert verdict.end() == 1
    assert name in capsys.readouterr().out


def test_nothing_is_judged_without_a_limit() -> None:
    with pytest.raises(KeyError):
        Verdict().of({"whatever": 1})


def found(**values: t.Any) -> dict[str, t.Any]:
    """What site measured of one size."""
    counted = {"executions_client": 10, "executions_server": 11}
    return {"clients": 2, "jobs": 1, **counted, "site": 9.0, "floor": 2.0, "ratio": 4.5, "to_first": 1.2, **values}


EXECUTIONS = {"executions of a client": 10, "executions of a server": 11}


@pytest.mark.parametrize(
    ("values", "first", "judged"),
    [
        ({}, 1, EXECUTIONS),
        ({"jobs": 5}, 1, EXECUTIONS),
        ({"jobs": 20}, 1, {**EXECUTIONS, "times as long with 20 jobs as with 1": 1.2}),
        ({"jobs": 20}, 5, EXECUTIONS),
        ({"clients": 40}, 1, {**EXECUTIONS, "times the floor with 40 clients": 4.5}),
    ],
)
def test_site(values: dict[str, t.Any], first: int, judged: dict[str, float]) -> None:
    assert site.judged(found(**values), first) == judged


@pytest.mark.parametrize(
    ("bare", "taken", "judged"),
    [
        (2.0, 2.5, {"s that a unit adds": 0.5}),
        (59.0, 59.5, {"s that a unit adds": 0.5}),
        (60.0, 63.0, {"% that a unit adds to a minute or more": 5.0}),
    ],
)
def test_unit(bare: float, taken: float, judged: dict[str, float]) -> None:
    assert unit.judged(bare, taken) == pytest.approx(judged)


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((2, 0), 1)])
def test_all_is_measured_first(
    codes: tuple[int, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(everything, "PARTS", [f"part{number}" for number in range(len(codes))])
    left, started = list(codes), []

    def run(argv: list[str], **_more: t.Any) -> subprocess.CompletedProcess[str]:
        started.append(argv)
        return subprocess.CompletedProcess(argv, left.pop(0))

    monkeypatch.setattr(subprocess, "run", run)
    assert everything.main() == code
    assert started == [[sys.executable, "-m", f"tests.benchmark.part{number}"] for number in range(len(codes))]
    said = capsys.readouterr().out
    assert [f"part{number}" in said.splitlines()[-1] for number in range(len(codes))] == [each > 0 for each in codes]
