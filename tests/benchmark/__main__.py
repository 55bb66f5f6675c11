"""All benchmarks, one after the other: `make bench`. Each can be run alone, see its own description."""

from __future__ import annotations

import subprocess
import sys

PARTS = ("keyless", "info", "unit", "site", "throughput")

if __name__ == "__main__":
    for part in PARTS:
        print(f"\n== tests.benchmark.{part}", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.benchmark.{part}"], check=True)
