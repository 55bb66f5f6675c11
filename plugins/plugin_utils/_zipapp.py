# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the host program `holdfast` in memory: one zipapp of the collection's own module_utils, the same bytes anywhere."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import zipfile
from pathlib import Path

PACKAGE = "holdfast"
# Isolated: neither the environment nor the current directory of whoever calls it brings code in; no site packages.
SHEBANG = b"#!/usr/bin/python3 -IS\n"
# Zip has no earlier time.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = f"import sys\n\nfrom {PACKAGE}._program.cli import main\n\nsys.exit(main())\n"


def build(collection: Path) -> bytes:
    """The program as bytes, from the collection in `collection`. Raises ValueError if it cannot be built."""
    sources = select(dict(_read(collection / "plugins" / "module_utils")))
    if "_program/cli.py" not in sources:
        raise ValueError("plugins/module_utils/_program/cli.py is missing")
    files = {f"{PACKAGE}/{name}": text for name, text in sources.items()}
    files[f"{PACKAGE}/__init__.py"] = f'__version__ = "{version(collection)}"\n'
    files["__main__.py"] = _MAIN
    stream = io.BytesIO()
    stream.write(SHEBANG)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].encode("utf-8"))
    return stream.getvalue()


def version(collection: Path) -> str:
    """The collection's version: of its galaxy.yml in a clone, of its MANIFEST.json where it is installed, else '0'."""
    galaxy, manifest = collection / "galaxy.yml", collection / "MANIFEST.json"
    found = None
    if galaxy.is_file():
        line = re.search(r"^version:\s*[\"']?([0-9A-Za-z.+-]+)", galaxy.read_text(encoding="utf-8"), re.MULTILINE)
        found = line[1] if line else None
    elif manifest.is_file():
        found = json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    return found if found and re.match(r"\A[0-9A-Za-z.+-]+\Z", found) else "0"


def select(sources: dict[str, str]) -> dict[str, str]:
    """Those sources, by path, that the program is made of: its own package and what that imports.

    So a change elsewhere in the collection does not send the program to every host again. Raises ValueError when one of them
    imports more than the standard library and the others.
    """
    waiting = [name for name in sources if name.startswith("_program/")]
    kept = {}
    while waiting:
        name = waiting.pop()
        kept[name] = sources[name]
        for module in _imports(name, sources[name]):
            found = _file_of(module, sources)
            if found is None and (
                module.startswith(".") or module.split(".", maxsplit=1)[0] not in sys.stdlib_module_names
            ):
                raise ValueError(f"plugins/module_utils/{name} imports {module}, which hosts do not have")
            if found is not None and found not in kept:
                waiting.append(found)
    return kept


def _read(directory: Path) -> list[tuple[str, str]]:
    return [
        (path.relative_to(directory).as_posix(), path.read_text(encoding="utf-8"))
        for path in directory.rglob("*.py")
        if path.is_file()
    ]


def _file_of(module: str, sources: dict[str, str]) -> str | None:
    """The source of a module with a leading dot; None for others."""
    if not module.startswith("."):
        return None
    # `from .x import y`: y is a module in the package x, or a name in the module x.
    path = module.lstrip(".").replace(".", "/")
    parent = path.rpartition("/")[0]
    candidates = (f"{path}.py", f"{path}/__init__.py", f"{parent}.py", f"{parent}/__init__.py")
    return next((each for each in candidates if each in sources), None)


def _imports(name: str, text: str) -> list[str]:
    """Modules that a source imports; a leading dot stands for module_utils itself."""
    package = name.split("/")[:-1]
    found = []
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            parts = [*base, *(node.module.split(".") if node.module else [])]
            found += [".".join(["", *parts, alias.name]) for alias in node.names]
    return found
