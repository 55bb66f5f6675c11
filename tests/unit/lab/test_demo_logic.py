"""How the demo describes its fleet, and how it ends where no lab is needed to see that."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.demo import demo
from tests.lab import LabError

ROOT = Path(__file__).resolve().parents[3]
# The demo with a lab that only waits, or does what a test says.
WAITING = """
import sys, time
from unittest import mock
from tests.demo import demo
def run(self):
    print("begun", flush=True)
    time.sleep(60)
with mock.patch("tests.demo.demo.Lab"), mock.patch.object(demo.Demo, "run", run):
    sys.exit(demo.main())
"""


def test_a_release_is_pinned_for_the_architecture_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    text = demo.pinned_release({"version": "1.2.3", "sha256": "ab" * 32}, "http://lab/")
    assert f"restic_release_sha256: {{aarch64: {'ab' * 32}}}\n" in text
    assert "restic_release_mirror: http://lab/restic\n" in text


class Lab:
    """One of which neither begin nor end succeeds."""

    def __init__(self, name: str) -> None:
        self.downs = 0

    def down(self) -> None:
        """The first call is that before the story."""
        self.downs += 1
        if self.downs > 1:
            raise LabError("a process does not end")

    def up(self, *_hosts: object, **_options: object) -> None:
        raise LabError("Programs are missing: apt-get install nftables")


@pytest.mark.parametrize("keep", ["0", "1"])
def test_what_the_lab_lacks_is_one_sentence(
    keep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "Lab", Lab)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setenv("KEEP", keep)
    monkeypatch.setattr(signal, "signal", lambda *_arguments: None)
    assert demo.main() == 1
    said = capsys.readouterr().err
    assert "The demo failed: Programs are missing: apt-get install nftables." in said
    assert ("a process does not end" in said) == (keep == "0")
    assert len(list(tmp_path.iterdir())) == int(keep)


def test_a_terminal_that_is_closed_leaves_no_key(tmp_path: Path) -> None:
    """The shell and the kernel both tell of it, and nothing can be printed any more."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + WAITING],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "KEEP": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        said = b""
        while b"begun" not in said:
            said += os.read(ours, 1000)
        assert list(tmp_path.glob("holdfast-demo-*"))
        os.close(ours)
        telling_until = time.monotonic() + 0.2
        while time.monotonic() < telling_until and process.poll() is None:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


def test_what_nohup_asks_for_is_done(tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with subprocess.Popen(
        [sys.executable, "-c", ignoring + WAITING],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        finally:
            process.terminate()
            process.wait(timeout=20)
    assert list(tmp_path.iterdir()) == []
