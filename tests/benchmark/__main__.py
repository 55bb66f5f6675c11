"""All benchmarks, one after the other: `make bench`. Each can be run alone, see its own description.

A figure that is over its limit (`limits.py`) fails at the end: all are measured first.
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("keyless", "info", "unit", "site", "throughput")


def main() -> int:
    """Run all, and say which failed."""
    failed = []
    for part in PARTS:
        print(f"\n== tests.benchmark.{part}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmark.{part}"], check=False).returncode:
            failed.append(part)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nEvery figure is within its limit.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
