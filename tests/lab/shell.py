"""Run programs with a time limit, and fail with one clear sentence."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


class LabError(Exception):
    """One sentence that says what is wrong and what cures it."""


def run(
    argv: Sequence[str],
    *,
    timeout: float = 30,
    input: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program of the outer machine and return what it said."""
    shown = " ".join(word if len(word) < 80 and "\n" not in word else "…" for word in argv)
    try:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed; run `lab doctor`.") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` did not end within {timeout:.0f} s.") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise LabError(f"`{shown}` ended with {done.returncode}: {' | '.join(said)}")
    return done


def wait_until(condition: Callable[[], bool], *, timeout: float, pause: float = 0.05) -> bool:
    """Poll until the condition holds; False when the time is over."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
