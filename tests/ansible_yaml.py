"""The YAML of this collection, parsed once: part of tests/ansible_server.py.

Each command would parse all playbooks and roles anew, in PyYAML's Python: a sixth of what a run costs the controller.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader

# Of a role, and of the collection itself.
WHERE = ("playbooks/*.yml", "playbooks/*/*.yml", "roles/*/*/*.yml")


def keep(collection: Path) -> None:
    """Parse it, for all loaders that this process and those that it forks make from now on."""
    loader: Any = DataLoader()
    parsed: dict[str, tuple[tuple[int, int], Any]] = {}
    for path in (path for pattern in WHERE for path in collection.glob(pattern)):
        content = loader.load_from_file(str(path), cache="none", unsafe=True, trusted_as_template=True)
        for name in {str(path), os.path.realpath(path)}:
            parsed[name] = (_seen(name), content)
    own_init = DataLoader.__init__

    def init(self: Any) -> None:
        own_init(self)
        # A test may have changed one since.
        self._FILE_CACHE.update({name: content for name, (seen, content) in parsed.items() if _seen(name) == seen})

    kind: Any = DataLoader
    kind.__init__ = init


def _seen(name: str) -> tuple[int, int]:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
