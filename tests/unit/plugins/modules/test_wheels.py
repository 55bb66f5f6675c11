# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""wheels as Ansible runs it, with the real venv and pip, and an index on this machine that counts its requests."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.modules import wheels

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="looks at owners: needs root")
Run = Callable[..., dict[str, Any]]


def wheel(folder: Path, version: str) -> str:
    """Put a wheel of one program that tells its version into an index; its line in a requirements file."""
    path = folder / f"tool/tool-{version}-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    about = f"tool-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tool.py", f"def main():\n    print({version!r})\n")
        packed.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tool\nVersion: {version}\n")
        packed.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{about}/entry_points.txt", "[console_scripts]\ntool = tool:main\n")
        packed.writestr(f"{about}/RECORD", "")
    return f"tool=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


class Index(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def translate_path(self, path: str) -> str:
        """A proxy is asked for the whole address."""
        return super().translate_path(urlsplit(path).path)

    def log_message(self, format: str, *args: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder of an index and its address."""
    folder = tmp_path / "index"
    folder.mkdir()
    Index.asked.clear()
    handler = functools.partial(Index, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    # pip trusts 127.0.0.1 without being told, and this name not.
    yield folder, f"http://holdfast.localtest:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(
    run_module: Run, place: Path, index: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    for name in wheels._PROXIES:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    # The name of the index is nobody's: it is asked as a proxy.
    monkeypatch.setenv("http_proxy", index[1].replace("holdfast.localtest", "127.0.0.1"))

    def call(requirements: str, *, check: bool = False, **args: Any) -> dict[str, Any]:
        given = {"requirements": requirements, "path": str(place / "environment"), "index": index[1], **args}
        return run_module(wheels, given, check=check)

    return call


def says(place: Path) -> str:
    return subprocess.run(
        [place / "environment/bin/tool"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_from_nothing_to_another_version_and_another_python(run: Run, place: Path, index: tuple[Path, str]) -> None:
    first, second = wheel(index[0], "1.0"), wheel(index[0], "2.0")
    announced = run(first, check=True)
    assert announced["changed"]
    assert (Index.asked, os.listdir(place)) == ([], [])
    real = run(first)
    assert not real["failed"], real
    assert (real["changed"], real["diff"]) == (True, announced["diff"])
    assert says(place) == "1.0"
    # An account without rights starts it.
    assert all(path.stat().st_mode & 0o004 for path in (place / "environment").rglob("*"))
    asked = len(Index.asked)
    assert asked > 0
    for check in (True, False):
        assert run(first, check=check)["changed"] is False
    assert len(Index.asked) == asked, "a converged run asks nothing"
    # What cannot be installed leaves what is there, and is not taken for installed.
    wrong = run(second.replace("sha256:", "sha256:00")[:-2])
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in wrong["msg"]
    assert "name every package with the hash of a wheel for Python" in wrong["msg"]
    assert says(place) == "1.0"
    assert run(second)["changed"]
    assert says(place) == "2.0"

    # A later Python does not see what was installed for the one before, and what was cut off has no record.
    record = place / "environment/holdfast.json"
    (place / "environment/left-over").touch()
    known = json.loads(record.read_text())
    # Not the Python of the tests.
    said = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert known["python_version"] == said.stdout.split()[1].rpartition(".")[0]
    record.write_text(json.dumps({**known, "python_version": "3.1"}))
    assert run(second, check=True)["changed"]
    assert (place / "environment/left-over").exists()
    assert run(second)["changed"]
    assert not (place / "environment/left-over").exists()
    assert says(place) == "2.0"
    record.unlink()
    assert run(second, check=True)["changed"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"requirements": " \n"}, "requirements are empty"),
        ({"index": "file:///srv"}, "index 'file:///srv' is not an http or https address"),
        ({"python": "/bin/false"}, "python /bin/false does not tell its version: exit status 1"),
        ({"path": "relative"}, "path"),
    ],
)
def test_what_is_refused(run: Run, place: Path, args: dict[str, str], words: str) -> None:
    found = run(args.pop("requirements", "tool==1.0"), **args)
    assert found["failed"]
    assert words in found["msg"]
    assert os.listdir(place) == []


def test_a_host_without_venv(run: Run, place: Path) -> None:
    python = place / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.11 && exit\necho ensurepip is not available >&2; exit 1\n')
    python.chmod(0o755)
    assert run("tool==1.0", python=str(python), check=True)["changed"]
    assert run("tool==1.0", python=str(python))["msg"] == (
        f"{place}/environment cannot be made: ensurepip is not available: is the package python3-venv installed?"
    )


def test_what_pip_is_told() -> None:
    assert wheels.lines("a", "") == "a\n"
    assert wheels.lines("a", "https://h/simple") == "--index-url https://h/simple\na\n"
    assert wheels.lines("a", "http://h:1/x") == "--index-url http://h:1/x\n--trusted-host h:1\na\n"


@pytest.mark.parametrize("option", ["index", "requirements"])
def test_a_password_of_an_index_is_refused_and_not_shown(run: Run, place: Path, option: str) -> None:
    given = {"requirements": "tool==1.0", option: "--index-url https://bob:s3cretpw@mirror.example.net/simple"}
    if option == "index":
        given[option] = given[option].split()[1]
    found = run(given.pop("requirements"), check=True, **given)
    assert found["failed"]
    assert f"{option} contains credentials" in found["msg"]
    assert "s3cretpw" not in json.dumps(found)
    assert os.listdir(place) == []


def test_what_a_failure_says() -> None:
    assert wheels.why(Result(1, "", "WARNING: x\nERROR: no such wheel\n")) == "no such wheel"
    assert wheels.why(Result(-15, timed_out=True)) == "it did not end in time"
