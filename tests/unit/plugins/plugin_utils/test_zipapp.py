# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host program as one file: the same bytes anywhere, and it runs."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible_collections.holdfast.backup.plugins.lookup.program import LookupModule
from ansible_collections.holdfast.backup.plugins.plugin_utils import _zipapp

COLLECTION = Path(__file__).resolve().parents[4]
CLI = "def main():\n    return 0\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources somewhere else, with other times and modes."""
    target = tmp_path / "elsewhere"
    shutil.copytree(COLLECTION / "plugins" / "module_utils", target / "plugins" / "module_utils")
    for name in ("galaxy.yml", "MANIFEST.json"):
        if (COLLECTION / name).is_file():
            shutil.copy(COLLECTION / name, target)
    for number, path in enumerate(sorted(target.rglob("*.py"))):
        os.utime(path, (number, 10**9 + number))
        path.chmod(0o600)
    return target


def test_reproducible(copy: Path) -> None:
    program = _zipapp.build(COLLECTION)
    assert program == _zipapp.build(copy)
    (copy / "plugins" / "module_utils" / "_program" / "text.py").write_text("changed = 1\n")
    assert program != _zipapp.build(copy)


def test_what_is_in_it() -> None:
    program = _zipapp.build(COLLECTION)
    assert program.startswith(b"#!/usr/bin/python3 -IS\n")
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {"__main__.py", "holdfast/__init__.py", "holdfast/_program/cli.py", "holdfast/_outcome.py"} <= set(names)
        assert "holdfast/_file_tree.py" not in names
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def _run(tmp_path: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "holdfast"
    program.write_bytes(_zipapp.build(COLLECTION))
    # What lies in the current directory or in the environment must not come in.
    trap = tmp_path / "trap"
    trap.mkdir(exist_ok=True)
    for name in ("argparse", "json", "holdfast", "sitecustomize"):
        (trap / f"{name}.py").write_text("raise SystemExit('taken in')\n")
    return subprocess.run(
        [python, "-IS", str(program), *arguments],
        cwd=trap,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(trap)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _oldest_python() -> str:
    """The oldest Python that hosts may have, where this machine has one that works; else ours."""
    found = shutil.which("python3.9")
    if found is None:
        return sys.executable
    # A pyenv has a script of that name, which wants to be told the version.
    asked = subprocess.run(
        [found, "-c", "import sys; print(sys.executable)"],
        env={**os.environ, "PYENV_VERSION": "3.9"},
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or sys.executable


def test_it_runs(tmp_path: Path) -> None:
    python = _oldest_python()
    done = _run(tmp_path, python, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"holdfast {_zipapp.version(COLLECTION)}\n"
    # Every module of it can be imported by this Python.
    with zipfile.ZipFile(tmp_path / "holdfast") as archive:
        modules = [name[:-3].replace("/", ".") for name in archive.namelist() if name.startswith("holdfast/_")]
    script = (
        "import sys, importlib; sys.path.insert(0, sys.argv[1]); [importlib.import_module(m) for m in sys.argv[2:]]"
    )
    every = subprocess.run(
        [python, "-IS", "-c", script, str(tmp_path / "holdfast"), *modules], capture_output=True, text=True, check=False
    )
    assert (every.returncode, every.stderr) == (0, "")


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({}, "0"),
        ({"galaxy.yml": "name: x\nversion: 1.2.3-rc.1\n"}, "1.2.3-rc.1"),
        ({"galaxy.yml": "version: '1.2.3'\n", "MANIFEST.json": '{"collection_info": {"version": "9"}}'}, "1.2.3"),
        ({"galaxy.yml": "name: x\n"}, "0"),
        ({"MANIFEST.json": '{"collection_info": {"version": "4.5.6"}}'}, "4.5.6"),
        ({"MANIFEST.json": '{"collection_info": {"version": "4\\"; import os"}}'}, "0"),
    ],
)
def test_version(tmp_path: Path, files: dict[str, str], version: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _zipapp.version(tmp_path) == version


def test_what_is_selected() -> None:
    sources = {
        "_program/cli.py": "import os.path\nfrom . import sub\nfrom .other import name\nfrom .. import _a\n" + CLI,
        "_program/sub/__init__.py": "from __future__ import annotations\nfrom ..._b import x\n",
        "_program/other.py": "from .sub import deep\nfrom . import cli\n",
        "_a.py": "def late():\n    from ._c import y\n",
        "_b.py": "",
        "_c.py": "",
        "_unused.py": "from ansible.module_utils.basic import AnsibleModule\n",
    }
    assert set(_zipapp.select(sources)) == set(sources) - {"_unused.py"}


@pytest.mark.parametrize(
    "line", ["import yaml", "from ansible import x", "from .missing import x", "from ..x import y"]
)
def test_what_hosts_do_not_have_is_refused(tmp_path: Path, line: str) -> None:
    package = tmp_path / "plugins" / "module_utils" / "_program"
    package.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"cli.py is missing"):
        _zipapp.build(tmp_path)
    (package / "cli.py").write_text(f"{line}\n{CLI}")
    with pytest.raises(ValueError, match=r"_program/cli.py imports .*, which hosts do not have"):
        _zipapp.build(tmp_path)
    (package / "cli.py").write_text(CLI)
    assert _zipapp.build(tmp_path)


def test_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    ((result),) = LookupModule().run([])
    content = base64.b64decode(result["content_base64"])
    assert content == _zipapp.build(COLLECTION)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    with pytest.raises(AnsibleError, match="takes no terms"):
        LookupModule().run(["x"])

    def fail(_collection: Path) -> bytes:
        raise ValueError("why")

    monkeypatch.setattr(_zipapp, "build", fail)
    with pytest.raises(AnsibleError, match="the host program cannot be built: why"):
        LookupModule().run([])
