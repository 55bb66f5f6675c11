"""Runs a backup and looks at all processes meanwhile, as root and as an ordinary user. Runs on a test host as root.

Prints how often it looked, how often it saw restic, and where a secret was seen; `control` is whether it sees one at all.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import time

SECRETS = """@SECRETS@""".split("\n")
NOBODY = 65534
UNIT = "holdfast-canary--vault.service"


def look() -> tuple[set[str], bool]:
    """Files of /proc in which a secret can be read now, and whether restic is among the processes."""
    leaks, restic = set(), False
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                text = file.read().decode(errors="replace")
        except OSError:
            continue
        restic = restic or "restic\0" in text[:100]
        if any(secret in text for secret in SECRETS):
            leaks.add(f"{path}: {text[:60]!r}")
    return leaks, restic


def control() -> bool:
    """Whether a secret in an argument and in the environment of a process is seen."""
    victim = subprocess.Popen(["sleep", "60"], env={"SECRET": SECRETS[0]})
    # The secret is its name: a shell would leave a child of the same arguments behind when it is killed.
    loud = subprocess.Popen([SECRETS[0], "60"], executable="/bin/sleep")
    try:
        # A program that has just been started has no arguments yet for a moment.
        for _attempt in range(20):
            seen = look()[0]
            if any(f"/{victim.pid}/environ" in each for each in seen) and any(
                f"/{loud.pid}/cmdline" in each for each in seen
            ):
                return True
            time.sleep(0.1)
        return False
    finally:
        for process in (victim, loud):
            process.kill()
            process.wait()


def main() -> None:
    """One backup, watched from its start to its end."""
    seen_control = control()
    samples = restic_seen = 0
    leaks: set[str] = set()
    backup = subprocess.Popen(["systemctl", "start", UNIT])
    while backup.poll() is None:
        os.seteuid(0 if samples % 2 else NOBODY)
        found, restic = look()
        os.seteuid(0)
        samples += 1
        restic_seen += restic
        leaks |= found
    print(json.dumps({"control": seen_control, "samples": samples, "restic_seen": restic_seen, "leaks": sorted(leaks)}))


if __name__ == "__main__":
    main()
