# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller decides of what host_info saw is what file_tree itself would find."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _tree_seen
from ansible_collections.holdfast.backup.plugins.modules import file_tree
from ansible_collections.holdfast.backup.plugins.plugin_utils import _delivered
from ansible_collections.holdfast.backup.plugins.plugin_utils._tree import tree_differs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]


class Case:
    """A namespace that is converged, to be altered."""

    def __init__(self, run_module: Run, place: Path) -> None:
        self.run_module = run_module
        self.place = place
        self.manifests = place / "state"
        self.files: list[dict[str, Any]] = [
            {"path": f"{place}/etc/a", "content": "eins\n"},
            {"path": f"{place}/etc/sub/b", "content_base64": "endlaQ==", "mode": "0600", "group": "daemon"},
        ]
        self.directories: list[dict[str, Any]] = [
            {"path": f"{place}/etc", "mode": "0755"},
            {"path": f"{place}/own", "owner": "daemon", "group": "daemon", "mode": "0700"},
        ]

    def module(self, *, check: bool = True) -> dict[str, Any]:
        wanted = {"files": self.files, "directories": self.directories}
        return self.run_module(
            file_tree, {"namespace": "demo", "manifest_dir": str(self.manifests), **wanted}, check=check
        )

    def seen(self) -> Any:
        found = json.loads(json.dumps(_tree_seen.look("demo", str(self.manifests))))
        # What is believed of a host includes it.
        assert _delivered.RESULTS["host_info"]["trees"].fits({"demo": found})
        return found

    def differs(self) -> bool:
        return tree_differs(self.seen(), self.files, self.directories)


@pytest.fixture
def case(run_module: Run, place: Path) -> Case:
    made = Case(run_module, place)
    assert made.seen() is None
    assert made.differs()
    assert made.module(check=False)["changed"]
    assert not made.differs()
    return made


def replace(case: Case, number: int, **keys: Any) -> None:
    case.files[number] = {**case.files[number], **keys}


def link(path: Path, target: Path) -> None:
    """A link in the place of a file, to what is just like it."""
    path.rename(target)
    path.symlink_to(target)


ON_THE_HOST: dict[str, Callable[[Path], object]] = {
    "mode": lambda place: os.chmod(place / "etc/a", 0o600),
    "owner": lambda place: os.chown(place / "etc/a", 1, 0),
    "group": lambda place: os.chown(place / "etc/sub/b", 0, 0),
    "owner without a name": lambda place: os.chown(place / "etc/a", 4711, 4711),
    "content": lambda place: (place / "etc/a").write_text("zwei\n"),
    "missing": lambda place: (place / "etc/sub/b").unlink(),
    "missing directory": lambda place: (place / "own").rmdir(),
    "mode of a directory": lambda place: (place / "own").chmod(0o711),
    "owner of a directory": lambda place: os.chown(place / "own", 0, 1),
    "a link": lambda place: link(place / "etc/a", place / "aside"),
}


@pytest.mark.parametrize("alter", ON_THE_HOST.values(), ids=ON_THE_HOST)
def test_what_is_altered_by_hand_is_announced_and_mended(case: Case, alter: Callable[[Path], object]) -> None:
    alter(case.place)
    assert case.differs()
    assert case.module()["changed"]
    assert case.module(check=False)["changed"]
    assert not case.differs()


WANTED: dict[str, Callable[[Case], object]] = {
    "content": lambda case: replace(case, 0, content="zwei\n"),
    "mode": lambda case: replace(case, 0, mode="0640"),
    "owner": lambda case: replace(case, 0, owner="daemon"),
    "one more": lambda case: case.files.append({"path": f"{case.place}/etc/c", "content": ""}),
    "one more, below a new directory": lambda case: case.files.append({"path": f"{case.place}/new/c", "content": ""}),
    "one less": lambda case: case.files.pop(),
    "one more directory": lambda case: case.directories.append({"path": f"{case.place}/etc/more"}),
    "mode of a directory": lambda case: case.directories.append({**case.directories.pop(), "mode": "0750"}),
}


@pytest.mark.parametrize("change", WANTED.values(), ids=WANTED)
def test_what_is_wanted_otherwise_is_seen(case: Case, change: Callable[[Case], object]) -> None:
    before = case.seen()
    change(case)
    assert case.differs()
    case.module(check=False)
    assert case.seen() != before
    assert not case.differs()


def test_the_digest_of_a_content_is_enough(case: Case) -> None:
    digest = case.seen()["entries"][f"{case.place}/etc/a"][4]
    case.files[0] = {"path": f"{case.place}/etc/a", "sha256": digest}
    assert not case.differs()
    case.files[0]["sha256"] = "0" * 64
    assert case.differs()


REFUSED: dict[str, Callable[[Case], object]] = {
    "writable by everybody": lambda case: case.place.chmod(0o777),
    "a damaged manifest": lambda case: (case.manifests / "demo.json").write_text("{"),
    "claimed by another": lambda case: (case.manifests / "other.json").write_text(
        json.dumps({"version": 1, "files": [f"{case.place}/etc/a"], "directories": {}})
    ),
    "what a killed run left": lambda case: (
        case.place / "etc/.holdfast-ca978112ca1bbdca.tmp"
    ).write_text(""),
    "no manifest": lambda case: (case.manifests / "demo.json").unlink(),
    "bad input": lambda case: replace(case, 0, mode="rw"),
    "not the form of an answer": lambda case: None,
}  # fmt: skip


@pytest.mark.parametrize("alter", REFUSED.values(), ids=REFUSED)
def test_the_module_itself_looks_where_it_has_something_to_say(case: Case, alter: Callable[[Case], object]) -> None:
    alter(case)
    if alter is REFUSED["not the form of an answer"]:
        for odd in ({"files": 5}, {**case.seen(), "entries": {f"{case.place}/etc/a": ["file"]}}):
            assert tree_differs(odd, case.files, case.directories)
        return
    assert case.differs()
    assert (case.seen() is None) is (alter is not REFUSED["bad input"])


def test_a_directory_that_is_left_is_looked_at_again(case: Case) -> None:
    (case.place / "etc/sub/foreign").write_text("")
    case.files.pop()
    case.module(check=False)
    assert case.seen()["directories"][f"{case.place}/etc/sub"] is True
    assert case.differs()
    (case.place / "etc/sub/foreign").unlink()
    assert case.module(check=False)["directories_removed"] == [f"{case.place}/etc/sub"]
    assert not case.differs()


@pytest.mark.parametrize("lookup", ["user_id", "group_id"])
def test_a_name_that_leads_to_another_number_is_none(case: Case, monkeypatch: pytest.MonkeyPatch, lookup: str) -> None:
    monkeypatch.setattr(_tree_seen, lookup, lambda _name: 77)
    assert case.differs()
