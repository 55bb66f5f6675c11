"""How the demo ends: with its hosts up where it is told so, and with nothing left at Ctrl-C."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.state import load

ROOT = Path(__file__).resolve().parents[2]
# A name of its own: a demo that somebody looks at stays.
LAB = "demo-test"
# Seconds for the whole story.
LIMIT = 560


class Running:
    """A demo that a shell started with KEEP=1: a process group that Ctrl-C reaches as a whole."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        with self.out.open("wb") as log:
            self.process = subprocess.Popen(
                [str(ROOT / "tests/demo/demo"), "--lab", LAB],
                cwd=ROOT,
                env={**os.environ, "KEEP": "1", "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self, timeout: float) -> tuple[int, str]:
        """Its exit code, and what it said."""
        status = self.process.wait(timeout)
        said = self.out.read_text()
        # Shown where a test fails.
        print(said)
        return status, said

    def left(self) -> list[str]:
        """What is there of its lab and of its files."""
        return [*map(str, self.temporary.iterdir()), *([LAB] if load(LAB) else [])]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        subprocess.run([str(ROOT / "tests/lab/lab"), "down", LAB], timeout=120, check=False, capture_output=True)


def test_kept_hosts_are_up_and_end_as_it_says(demo: Running) -> None:
    status, said = demo.ended(LIMIT)
    assert status == 0
    logins = re.findall(r"^  log in: (.+)$", said, re.MULTILINE)
    assert [each.split()[-1] for each in logins] == ["vault1", "web1", "db1"]
    for login in logins:
        done = subprocess.run(
            shlex.split(login), cwd=ROOT, input=b"hostname\n", capture_output=True, timeout=60, check=True
        )
        assert login.split()[-1] in done.stdout.decode().split()
    (folder,) = re.findall(r"state directory: (.+)$", said, re.MULTILINE)
    assert (Path(folder) / "inventory.yml").exists()
    (teardown,) = re.findall(r"^  tear down: (.+)$", said, re.MULTILINE)
    subprocess.run(["sh", "-ec", teardown], cwd=ROOT, timeout=120, check=True)
    assert demo.left() == []


@pytest.mark.parametrize("step", ["[1/8]", "[4/8]"])
def test_ctrl_c_leaves_nothing(demo: Running, step: str) -> None:
    """While hosts boot, and while playbooks run; KEEP=1 is no reason to leave what is half made."""
    deadline = time.monotonic() + LIMIT
    while step not in demo.out.read_text() and time.monotonic() < deadline and demo.process.poll() is None:
        time.sleep(0.1)
    # In the midst of it.
    time.sleep(1)
    os.killpg(demo.process.pid, signal.SIGINT)
    status, said = demo.ended(120)
    assert status == 130
    assert step in said
    assert said.rstrip().endswith("interrupted; tearing down")
    assert demo.left() == []
