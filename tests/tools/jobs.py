"""Run several programs at the same time, each with a log and a time limit, and tell how they end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / ".cache/test"
GRACE = 30
AFTER = 300
# A third of an ordinary program's weight: enough that a busy machine does not keep it from ending.
NICE = 5
TAIL = 120


@dataclass(frozen=True)
class Job:
    """A program: `limit` in seconds; `after` always runs when it has ended; others go before one that is `behind`."""

    name: str
    command: Sequence[str]
    limit: float
    after: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    behind: bool = False

    @property
    def log(self) -> Path:
        """Its standard output and error."""
        return RESULTS / f"{self.name}.log"


@dataclass(frozen=True)
class Result:
    """How a job ended: `why` is empty when it passed."""

    job: Job
    seconds: float
    why: str


class Runner:
    """A few workers; ending the runner ends what they started."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ending = False

    def run(self, jobs: Sequence[Job], beside: Sequence[Job] = ()) -> list[Result]:
        """Run all jobs, in order as workers become free.

        Those that may run beside them start at once, one at a time, and get of the processors what is left; the workers
        help when they have nothing else to do.
        """
        RESULTS.mkdir(parents=True, exist_ok=True)
        # As an exception it ends the jobs, too.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        first = deque(jobs)
        second = deque(replace(job, behind=True) for job in beside)
        with ThreadPoolExecutor(self._workers + 1) as pool:
            futures = [pool.submit(self._all, first, second) for _number in range(self._workers)]
            futures.append(pool.submit(self._all, second))
            try:
                results = {result.job.name: result for future in futures for result in future.result()}
            except BaseException:
                with self._lock:
                    self._ending = True
                    for process in self._running:
                        _signal(process, signal.SIGTERM)
                raise
        return [results[job.name] for job in [*jobs, *beside]]

    def _all(self, *queues: deque[Job]) -> list[Result]:
        """What one worker did of some queues, one queue after the other."""
        done: list[Result] = []
        for queue in queues:
            while True:
                try:
                    job = queue.popleft()
                except IndexError:
                    break
                if self._ending:
                    return done
                done.append(self._one(job))
        return done

    def _one(self, job: Job) -> Result:
        print(f"{job.name}: started", flush=True)
        start = time.monotonic()
        with job.log.open("wb") as log:
            why = self._watched(job, log.fileno())
            if job.after:
                why = ", ".join(filter(None, (why, _after(job, log.fileno()))))
        seconds = time.monotonic() - start
        with self._lock:
            if why:
                print(f"\n---- {job.name}: the end of {job.log.relative_to(ROOT)}", flush=True)
                print("\n".join(job.log.read_text(errors="replace").splitlines()[-TAIL:]))
                print(f"---- {job.name}: end of log\n")
            print(f"{job.name}: {'FAILED, ' + why if why else 'passed'} ({seconds:.0f} s)", flush=True)
        return Result(job, seconds, why)

    def _watched(self, job: Job, log: int) -> str:
        with self._lock:
            if self._ending:
                return "not started"
            process = subprocess.Popen(
                job.command,
                cwd=ROOT,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if job.behind:
                _put_behind(process)
            self._running.add(process)
        try:
            code = process.wait(timeout=job.limit)
            return f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            return f"not ready after {job.limit:.0f} s"
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)


def _after(job: Job, log: int) -> str:
    """Run what comes after a job; why that failed."""
    program = shlex.join(job.after)
    try:
        done = subprocess.run(
            job.after, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=AFTER, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{program}: not ready after {AFTER} s"
    return f"{program}: exit code {done.returncode}" if done.returncode else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the job's process group, politely first; what it left behind too."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _put_behind(process: subprocess.Popen[bytes]) -> None:
    """Let others have the processors first. Linux may weigh whole sessions against each other, and this is one."""
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
