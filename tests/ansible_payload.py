"""What Ansible sends to hosts, compiled once: part of tests/ansible_server.py.

A module comes as a zip of sources, some sixty of Ansible's own among them, and the host's Python compiles them each time: half of what an
execution costs. Here the zip holds the code beside each source, of the Python that most test hosts have; any other one takes the source.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible.executor import module_common

# The Python of Debian 13, or whichever has the same code; of this process where none is there.
OTHER = Path(__file__).resolve().parents[1] / ".venvs/2.21/bin/python"
# Reads sources as JSON, and writes of each what a .pyc holds that is never compared with its source (PEP 552).
COMPILE = """
import base64, importlib.util, json, marshal, sys
head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
code = {n: head + marshal.dumps(compile(s, n, "exec", dont_inherit=True)) for n, s in json.load(sys.stdin).items()}
json.dump({name: base64.b64encode(each).decode() for name, each in code.items()}, sys.stdout)
"""


def keep(folder: Path) -> None:
    """Add the code to what is packed from now on, in this process and in all that it forks."""
    python = OTHER if OTHER.exists() else Path(sys.executable)

    class Packed(zipfile.ZipFile):
        """What is sent: sources, and the code of each."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._sources: dict[str, str] = {}

        def writestr(self, zinfo: Any, data: Any, *arguments: Any) -> None:
            """Write a source, and remember it."""
            super().writestr(zinfo, data, *arguments)
            if zinfo.filename.endswith(".py"):
                self._sources[zinfo.filename] = data.decode() if isinstance(data, bytes) else str(data)

        def close(self) -> None:
            """Write the code as well."""
            for name, content in _compiled(folder, python, self._sources).items():
                super().writestr(f"{name}c", content)
            self._sources = {}
            super().close()

    own: Any = module_common
    own.zipfile = SimpleNamespace(**{**vars(zipfile), "ZipFile": Packed})


def _compiled(folder: Path, python: Path, sources: dict[str, str]) -> dict[str, bytes]:
    """The code of each source, by its name; only what no process has compiled before is compiled."""
    kind = importlib.util.MAGIC_NUMBER.hex() if python != OTHER else OTHER.resolve().name
    paths = {
        name: folder / hashlib.sha256(f"{kind} {name} {source}".encode()).hexdigest()
        for name, source in sources.items()
    }
    missing = {name: sources[name] for name, path in paths.items() if not path.exists()}
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [python, "-I", "-c", COMPILE],
            input=json.dumps(missing),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        for name, code in json.loads(done.stdout).items():
            temporary = folder / f"{paths[name].name}.{os.getpid()}"
            temporary.write_bytes(base64.b64decode(code))
            temporary.rename(paths[name])
    return {name: path.read_bytes() for name, path in paths.items()}
