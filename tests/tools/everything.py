"""Every check and every test, and a summary as pytest writes it: `make test`.

Three at a time; what only reads the sources runs beside them, in what the waiting of the tests on hosts leaves of the
processors.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from . import sanity, scenarios
from .jobs import RESULTS, ROOT, Job, Result, Runner

# Sessions of the noxfile with their limits in seconds. Those with real hosts and molecule's scenarios take longest: they
# come first, then the demo; the unit tests fill up.
LONG = {"integration": 2700}
DEMO = {"demo": 1200, "demo-2.21": 600}
SHORT = {"unit": 600, "unit-2.21": 600}
# What only reads the sources, the longest first. It has to wait for all others.
BESIDE = {
    "sanity": 2400, "sanity-2.21": 2400, "ansible_lint": 2400, "types": 2400, "package": 900, "docs": 900, "style": 900,
    "yaml": 900, "changelog": 900,
}  # fmt: skip
LAST = {"coverage": 120}
# Tests on hosts leave two processors idle for half of the time when two of them run.
WORKERS = 3
# Jobs whose pytest says what it did: of one without a case nothing is known. `demo-2.21` is no pytest.
TESTING = re.compile(r"molecule-.*|unit.*|integration|demo")
# How nox says that it skipped a session.
NOX_SKIPPED = re.compile(r"^nox > Session \S+ skipped: (.*?)\.?$", re.MULTILINE)
# How ansible-test says that the lowest Python is not here; it ends well all the same.
NO_PYTHON = f" on Python {sanity.LOWEST} because it could not be found"
# Characters of a failure's message that the summary shows.
MESSAGE = 600


def main() -> int:
    """Run all; the last line counts checks and tests."""
    start = time.monotonic()
    for old in (RESULTS, ROOT / ".cache/coverage"):
        shutil.rmtree(old, ignore_errors=True)
    runner = Runner(WORKERS)
    jobs = [session(*item) for item in LONG.items()]
    jobs += [scenarios.job(name) for name in scenarios.listed()]
    jobs += [session(*item) for item in DEMO.items()]
    jobs += [session(*item) for item in SHORT.items()]
    beside = [session(*item) for item in BESIDE.items()]
    results = runner.run([counted(job) for job in jobs], [counted(job) for job in beside])
    results += runner.run([session(*item) for item in LAST.items()])
    return summary(results, time.monotonic() - start)


def session(name: str, limit: float) -> Job:
    """A session of the noxfile."""
    return Job(name, [str(Path(sys.executable).parent / "nox"), "--no-color", "-s", name], limit)


def counted(job: Job) -> Job:
    """The job, telling each pytest that it runs to write its results down."""
    options = f"--junitxml={shlex.quote(str(report(job)))}"
    return replace(job, environment={**job.environment, "PYTEST_ADDOPTS": options})


def report(job: Job) -> Path:
    """Where the results of the job's pytest are."""
    return RESULTS / f"{job.name}.xml"


def summary(results: Sequence[Result], seconds: float) -> int:
    """Print what failed and the closing line; returns the exit code."""
    count: Counter[str] = Counter()
    print("\n" + " slowest ".center(80, "="))
    for result in sorted(results, key=lambda result: -result.seconds)[:12]:
        print(f"{result.seconds:7.0f} s {result.job.name}")
    print(" short test summary info ".center(80, "="))
    for result in results:
        failed = 0
        found = cases(report(result.job))
        for case in found:
            end = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
            outcome = "passed" if end is None else end.tag
            if end is not None and outcome in ("failure", "error"):
                failed += 1
                print(f"FAILED {result.job.name}: {case.get('classname')}::{case.get('name')} - {message(end)}")
            elif end is not None:
                print(f"SKIPPED {result.job.name}: {case.get('classname')}::{case.get('name')} - {message(end)}")
            count["failed" if outcome in ("failure", "error") else outcome] += 1
        why = result.why
        reason = "" if why else skipped(result)
        if not why and not reason and not found and TESTING.fullmatch(result.job.name):
            why = "ended well, and no test of it is on record"
        if reason:
            count["skipped"] += 1
            print(f"SKIPPED {result.job.name}: {reason}")
        elif not why:
            count["passed"] += 1
            if result.job.name.startswith("sanity") and NO_PYTHON in result.job.log.read_text(errors="replace"):
                count["skipped"] += 1
                print(f"SKIPPED {result.job.name}: what needs Python {sanity.LOWEST}, which is not here")
        elif not failed:
            count["failed"] += 1
            print(f"FAILED {result.job.name}: {why}")
    words = ", ".join(f"{count[word]} {word}" for word in ("failed", "passed", "skipped") if count[word])
    minutes, rest = divmod(int(seconds), 60)
    closing = f" {words} in {seconds:.2f}s ({minutes // 60}:{minutes % 60:02}:{rest:02}) "
    print(closing.center(80, "="), flush=True)
    return 1 if count["failed"] else 0


def cases(path: Path) -> list[ElementTree.Element]:
    """The test cases of a JUnit file, none if there is no file."""
    try:
        return list(ElementTree.parse(path).iter("testcase"))  # noqa: S314 - pytest of this run wrote it
    except (FileNotFoundError, ElementTree.ParseError):
        return []


def message(failure: ElementTree.Element) -> str:
    """How a failure's message begins, in one line."""
    return " ".join(failure.get("message", "").split())[:MESSAGE]


def skipped(result: Result) -> str:
    """Why nox skipped the whole session, if it did."""
    found = NOX_SKIPPED.search(result.job.log.read_text(errors="replace"))
    return found[1] if found else ""


if __name__ == "__main__":
    sys.exit(main())
