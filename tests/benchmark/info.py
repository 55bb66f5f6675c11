"""How often repository_info opens a repository, and what it adds to the restic commands that it runs.

    .venv/bin/python -m tests.benchmark.info [--runs 5]

restic is a wrapper that notes how long each of its calls took; what the module takes besides, without the start of
Python and Ansible's own part, is what it adds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmark.limits import Verdict
from tests.integration.debian_binaries import program

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/programs"
WRAPPER = """\
#!/bin/sh
begun=$(date +%s%N)
{restic} "$@"
status=$?
case "$*" in *version*) ;; *) echo "$(( $(date +%s%N) - begun ))" >> {log} ;; esac
exit $status
"""
# Runs inside the module's process: its own part is what passes between reading the arguments and the result.
TIMED = """\
import os, time
from ansible_collections.holdfast.backup.plugins.modules import repository_info
begun = time.perf_counter()
try:
    repository_info.main()
finally:
    open(os.environ["TOOK_FILE"], "w").write(str(time.perf_counter() - begun))
"""


def module(code: str, arguments: dict[str, Any], **variables: str) -> str:
    """Run a module's code in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the module failed: {done.stdout}{done.stderr}")
    return done.stdout


def one(folder: Path, arguments: dict[str, Any]) -> tuple[int, float]:
    """Openings, and seconds that the module adds, of one execution."""
    log, took = folder / "calls", folder / "took"
    log.write_text("")
    printed = module(TIMED, arguments, TOOK_FILE=str(took))
    if json.loads(printed)["repository"]["snapshots"]["count"] != 1:
        raise SystemExit(f"repository_info did not see the snapshot: {printed}")
    calls = [int(line) / 1e9 for line in log.read_text().split()]
    return len(calls), float(took.read_text()) - sum(calls)


def main() -> int:
    """Print a line without and a line with the repository's id on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    CACHE.mkdir(parents=True, exist_ok=True)
    restic = program(CACHE, "trixie", "restic", "restic")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        (folder / "password").write_text("x")
        (folder / "password").chmod(0o400)
        environment = {
            "RESTIC_PASSWORD_FILE": str(folder / "password"),
            "RESTIC_REPOSITORY": str(folder / "repository"),
            "HOME": name,
        }

        def bare(*command: str) -> str:
            return subprocess.run(
                [restic, *command], env=environment, capture_output=True, text=True, timeout=120, check=True
            ).stdout

        bare("init", "--json")
        bare("backup", "--json", "/etc/hostname")
        wrapper = folder / "restic"
        wrapper.write_text(WRAPPER.format(restic=restic, log=folder / "calls"))
        wrapper.chmod(0o755)
        arguments = {
            "repository": str(folder / "repository"),
            "password_file": str(folder / "password"),
            "binary": str(wrapper),
        }
        adopted = {"name": "bench", "record": str(folder / "record.env"), **arguments}
        module(
            "import ansible_collections.holdfast.backup.plugins.modules.repository as m; m.main()",
            {"repositories": [adopted]},
        )
        print(f"{'repository_info':28}{'openings':>10}{'added s':>10}", flush=True)
        verdict = Verdict()
        for title, opened, more in (
            ("without a record", "openings", {}),
            ("with the id on record", "openings with the id on record", {"record": str(folder / "record.env")}),
        ):
            found = [one(folder, {**arguments, **more}) for _run in range(runs)]
            count = max(count for count, _seconds in found)
            added = statistics.median(seconds for _count, seconds in found)
            judged = verdict.of({opened: count, "s that repository_info adds": added})
            print(f"{title:28}{count:10}{added:10.3f}   {judged}", flush=True)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main())
