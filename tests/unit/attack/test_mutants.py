# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mutant that takes nothing away is no mutant, and one that only some of its tests notice is not noticed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attack import each_mutant, mutants
from tests.attack.mutants import Edit, Mutant

ROOT = Path(__file__).resolve().parents[3]
REPORT = '<testsuites><testsuite><testcase name="test_a[x]">{0}</testcase><testcase name="test_b">{1}</testcase></testsuite></testsuites>'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A host's shell, whose init system does nothing; the error of a script that failed."""
    monkeypatch.setattr(mutants, "_BEFORE", str(tmp_path / "before"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "bin/systemctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def run(script: str) -> str:
        done = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode != 0) == bool(done.stderr), done
        return done.stderr

    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What is guaranteed."""
    (tmp_path / "etc").mkdir()
    for name in ("one", "two"):
        (tmp_path / "etc" / name).write_text("restrict\n")
    return tmp_path / "etc"


@pytest.mark.parametrize("script", ["sed -i s/restrict// {0}/one", "chmod a+x {0}/one", "touch {0}/one2"])
def test_what_changes_is_given_back(run: Callable[[str], str], place: Path, script: str) -> None:
    (place / "one").chmod(0o600)
    mutant = Mutant((), (f"{place}/one*",), script.format(place))
    assert run(mutant.take()) == ""
    assert run(mutant.give_back()) == ""
    assert ((place / "one").read_text(), (place / "one").stat().st_mode & 0o777) == ("restrict\n", 0o600)


@pytest.mark.parametrize("script", [":", "sed -i s/no-such-word// {0}/one {0}/two", "sed -i s/restrict// {0}/one"])
def test_what_leaves_one_place_as_it_was_fails(run: Callable[[str], str], place: Path, script: str) -> None:
    said = run(Mutant((), (f"{place}/one", f"{place}/t*"), script.format(place)).take())
    assert said.rstrip().endswith(" is as it was")


def test_a_place_that_is_not_there_fails(run: Callable[[str], str], place: Path) -> None:
    assert "three" in run(Mutant((), (f"{place}/three",), f"touch {place}/three").take())


def test_a_script_that_fails_does(run: Callable[[str], str], place: Path) -> None:
    assert "no-such-program" in run(Mutant((), (f"{place}/one",), f"no-such-program; rm {place}/one").take())
    assert (place / "one").exists()


@pytest.mark.parametrize("edit", mutants.EDITS.values(), ids=mutants.EDITS)
def test_edits_change_the_collection(edit: Edit) -> None:
    assert (ROOT / edit.file).read_text().count(edit.old) == 1


@pytest.mark.parametrize("name", mutants.ALL)
def test_every_mutant_has_tests_and_is_documented(name: str) -> None:
    folder = ROOT / "tests/attack"
    assert mutants.ALL[name].tests
    for test in mutants.ALL[name].tests:
        file, _colons, function = test.partition("::")
        assert f"def {function.partition('[')[0]}(" in (folder / file).read_text()
    assert f"`{name}`" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("cases", "why"),
    [
        (("<failure/>", "<failure/>"), ""),
        (("<failure/>", ""), "not noticed by test.py::test_b"),
        (("", ""), "not noticed by test.py::test_a, test.py::test_b"),
        (("<failure/>", "<error/>"), "could not be tried"),
        (("<failure/><error/>", "<failure/>"), "could not be tried"),
    ],
)
def test_each_test_has_to_notice(tmp_path: Path, cases: tuple[str, str], why: str) -> None:
    (tmp_path / "report.xml").write_text(REPORT.format(*cases))
    assert each_mutant.judged(["test.py::test_a", "test.py::test_b"], tmp_path / "report.xml") == why


def test_a_run_without_tests_notices_nothing(tmp_path: Path) -> None:
    assert each_mutant.judged(["test.py::test_a"], tmp_path / "report.xml") == "nothing was tested"
    (tmp_path / "report.xml").write_text("<testsuites/>")
    assert each_mutant.judged(["test.py::test_a"], tmp_path / "report.xml") == "not noticed by test.py::test_a"
