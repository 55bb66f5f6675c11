# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take away one thing after the other, and see that the tests which should notice fail: python -m tests.attack.each_mutant [NAME...]."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tests.lab import Lab

from .mutants import ALL
from .ssh_side import ROOT

HERE = Path(__file__).parent
LIMIT = 1800


def main(names: Sequence[str]) -> int:
    """Try the mutants, all without a name; 1 if one of them was not noticed."""
    unknown = set(names) - set(ALL)
    if unknown:
        print(f"no mutants: {', '.join(sorted(unknown))}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    # The same hosts for all: each mutant gives back what it took.
    lab = f"mutants-{os.getpid()}"
    survived = 0
    try:
        for name in names or ALL:
            why = noticed(name, lab)
            survived += bool(why)
            print(f"{name}: {why or 'noticed'}", flush=True)
    finally:
        for each in (lab, f"{lab}-fleet"):
            Lab(each).down()
        shutil.rmtree(ROOT / f".cache/attack/{lab}-fleet", ignore_errors=True)
    return 1 if survived else 0


def noticed(name: str, lab: str) -> str:
    """Empty if each test of a mutant fails, and nothing else goes wrong; else what happened."""
    tests = ALL[name].tests
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *[str(HERE / test) for test in tests]],
            cwd=ROOT, env={**os.environ, "HOLDFAST_MUTANT": name, "HOLDFAST_LAB": lab}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        why = judged(tests, report)
    return f"{why}\n{done.stdout}" if why else ""


def judged(tests: Sequence[str], report: Path) -> str:
    """Empty if at least one case of each test failed, and none ended with an error: of a mutant that changed nothing, say."""
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest of this run wrote it
    except (FileNotFoundError, ElementTree.ParseError):
        return "nothing was tested"
    if any(case.find("error") is not None for case in cases):
        return "could not be tried"
    failed = {str(case.get("name")) for case in cases if case.find("failure") is not None}
    failed |= {name.partition("[")[0] for name in failed}
    green = [test for test in tests if test.partition("::")[2] not in failed]
    return f"not noticed by {', '.join(green)}" if green else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
