"""The summary of `make test`: nothing that failed, or tested nothing, passes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.tools import everything, jobs
from tests.tools.jobs import Job, Result, Runner

SKIPPED = "nox > Session unit-2.21 skipped: no Python 3.12 here.\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs and reports are."""
    for module in (everything, jobs):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(jobs, "ROOT", tmp_path)
    return tmp_path


def summary(place: Path, name: str, *, why: str = "", log: str = "", cases: str | None = "<testcase/>") -> int:
    """The exit code of a run of one job."""
    (place / f"{name}.log").write_text(log)
    if cases is not None:
        (place / f"{name}.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return everything.summary([Result(Job(name, [], 1), 1, why)], 1)


def test_what_is_good_is_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(place, "molecule-x") == 0
    assert " 2 passed in " in capsys.readouterr().out


def test_a_case_that_failed_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = '<testcase classname="a" name="b"><failure message="no\nway"/></testcase>'
    assert summary(place, "unit", why="exit code 1", cases=bad) == 1
    said = capsys.readouterr().out
    assert "FAILED unit: a::b - no way\n" in said
    assert " 1 failed in " in said


@pytest.mark.parametrize("log", ["", SKIPPED])
@pytest.mark.parametrize("why", ["exit code 1", "not ready after 1 s"])
def test_a_job_that_failed_fails_whatever_its_log_says(
    place: Path, capsys: pytest.CaptureFixture[str], log: str, why: str
) -> None:
    assert summary(place, "unit-2.21", why=why, log=log) == 1
    assert f"FAILED unit-2.21: {why}\n" in capsys.readouterr().out


def test_a_skipped_session_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(place, "unit-2.21", log=f"nox > Running session unit-2.21\n{SKIPPED}", cases=None) == 0
    said = capsys.readouterr().out
    assert "SKIPPED unit-2.21: no Python 3.12 here\n" in said
    assert " 1 skipped in " in said


def test_other_lines_of_a_log_skip_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(place, "style", log="a Session of sftp was skipped: why not\n", cases=None) == 0
    assert " 1 passed in " in capsys.readouterr().out


def test_a_skipped_case_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = '<testcase classname="a" name="b"><skipped message="needs root"/></testcase>'
    assert summary(place, "unit", cases=case) == 0
    said = capsys.readouterr().out
    assert "SKIPPED unit: a::b - needs root\n" in said
    assert " 1 passed, 1 skipped in " in said


@pytest.mark.parametrize("name", ["molecule-x", "unit", "unit-2.21", "integration", "demo"])
@pytest.mark.parametrize("cases", [None, "", "<broken"])
def test_a_job_without_a_test_fails(
    place: Path, capsys: pytest.CaptureFixture[str], name: str, cases: str | None
) -> None:
    assert summary(place, name, cases=cases) == 1
    assert f"FAILED {name}: ended well, and no test of it is on record\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["style", "demo-2.21"])
def test_what_is_no_pytest_needs_no_test(place: Path, name: str) -> None:
    assert summary(place, name, cases=None) == 0


@pytest.mark.parametrize(("version", "tail"), [("3.9", " 1 passed, 1 skipped in "), ("3.14", " 1 passed in ")])
def test_the_lowest_python_is_missed(place: Path, capsys: pytest.CaptureFixture[str], version: str, tail: str) -> None:
    log = f'WARNING: Skipping sanity test "import" on Python {version} because it could not be found.\n'
    assert summary(place, "sanity", log=log, cases=None) == 0
    said = capsys.readouterr().out
    assert ("SKIPPED sanity: what needs Python 3.9, which is not here\n" in said) is (version == "3.9")
    assert tail in said


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("code", "after", "why"),
    [
        (0, 0, ""),
        (0, 3, "sh -c 'exit 3': exit code 3"),
        (4, 0, "exit code 4"),
        (4, 3, "exit code 4, sh -c 'exit 3': exit code 3"),
    ],
)
def test_hosts_that_do_not_end_fail_their_job(code: int, after: int, why: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        (result,) = Runner(1).run([Job("one", ["sh", "-c", f"exit {code}"], 20, after=["sh", "-c", f"exit {after}"])])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.why == why
