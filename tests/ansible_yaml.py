"""YAML that every command of Ansible parses anew, parsed once: part of tests/ansible_server.py.

The playbooks and roles of this collection, in PyYAML's Python, and what Ansible knows of its own plugins: a third of what a run
costs the controller.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import ansible
from ansible.parsing.dataloader import DataLoader
from ansible.utils.collection_loader import _collection_finder

# Of playbooks, and of roles.
WHERE = ("playbooks/*.yml", "playbooks/*/*.yml", "roles/*/*/*.yml")
PLUGINS = Path(ansible.__file__).parent / "config/ansible_builtin_runtime.yml"


def keep(collection: Path) -> None:
    """Parse it, for this process and all that it forks."""
    kind: Any = DataLoader
    load, parsed = kind.load_from_file, {}
    whole: dict[str, Any] = {}
    for path in (path for pattern in WHERE for path in collection.glob(pattern)):
        content = pickle.dumps(load(DataLoader(), str(path), cache="none", unsafe=True, trusted_as_template=True))
        for name in {str(path), os.path.realpath(path)}:
            parsed[name] = (_seen(name), content)

    def load_from_file(self: Any, file_name: str, *arguments: Any, **options: Any) -> Any:
        name = self.path_dwim(file_name)
        # A test may have changed it since.
        if name in parsed and options.get("trusted_as_template") and parsed[name][0] == _seen(name):
            if not options.get("unsafe"):
                # A copy that may be changed: several times as fast as the loader's own.
                return pickle.loads(parsed[name][1])  # noqa: S301 - what this very program wrote
            if name not in whole:
                whole[name] = pickle.loads(parsed[name][1])  # noqa: S301 - the same
            return whole[name]
        return load(self, file_name, *arguments, **options)

    kind.load_from_file = load_from_file
    _keep_plugins()


def _keep_plugins() -> None:
    finder: Any = _collection_finder
    own = finder._meta_yml_to_dict
    text = PLUGINS.read_bytes()
    content = pickle.dumps(own(text, None))

    def meta(raw: bytes | str, content_id: Any) -> Any:
        same = (raw.encode() if isinstance(raw, str) else raw) == text
        return pickle.loads(content) if same else own(raw, content_id)  # noqa: S301 - the same

    finder._meta_yml_to_dict = meta


def _seen(name: str) -> tuple[int, int]:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
