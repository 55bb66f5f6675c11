# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""file_tree as Ansible runs it, on a real directory: set/check x changed/idempotent, attacks, kills."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _files, _manifest, _validate
from ansible_collections.holdfast.backup.plugins.modules import file_tree

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
LISTS = (
    "created",
    "changed_files",
    "removed",
    "directories_created",
    "directories_changed",
    "directories_removed",
)

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(run_module: Run, place: Path) -> Run:
    """Run file_tree with its manifests in the test's directory."""

    def call(*, check: bool = False, **args: Any) -> dict[str, Any]:
        defaults = {"namespace": "demo", "manifest_dir": str(place / "state" / "manifests")}
        return run_module(file_tree, {**defaults, **args}, check=check)

    return call


def snapshot(root: Path) -> dict[str, Any]:
    """Everything below a directory but the manifests: kind, owner, mode and content."""
    seen = {}
    for path in sorted(root.rglob("*")):
        if "state" in path.parts:
            continue
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        seen[str(path.relative_to(root))] = (info.st_mode, info.st_uid, info.st_gid, content)
    return seen


def lists(result: dict[str, Any], place: Path) -> dict[str, list[str]]:
    assert not result["failed"], result
    return {key: [os.path.relpath(path, place) for path in result[key]] for key in LISTS if result[key]}


def both(run: Run, place: Path, **args: Any) -> dict[str, list[str]]:
    """Check mode, the real run, and again: the first two say the same, the last nothing."""
    before = snapshot(place)
    announced = run(check=True, **args)
    assert snapshot(place) == before, "check mode wrote"
    real = run(**args)
    assert {key: value for key, value in real.items() if key != "invocation"} == {
        key: value for key, value in announced.items() if key != "invocation"
    }
    for check in (True, False):
        again = run(check=check, **args)
        assert (again["changed"], lists(again, place), again["diff"]) == (False, {}, [])
    assert real["changed"] == any(real[key] for key in LISTS)
    return lists(real, place)


def file(place: Path, name: str, content: str = "x\n", **more: Any) -> dict[str, Any]:
    return {"path": str(place / name), "content": content, **more}


def test_create_change_remove(run: Run, place: Path) -> None:
    args: dict[str, Any] = {
        "files": [file(place, "d/a"), file(place, "new/deep/b")],
        "secret_files": [file(place, "d/s", "hush", mode="0400", owner="nobody", group="nogroup")],
        "directories": [{"path": str(place / "d"), "mode": "0750", "group": "nogroup"}],
    }
    assert both(run, place, **args) == {
        "created": ["d/a", "d/s", "new/deep/b"],
        "directories_created": ["d", "new", "new/deep"],
    }
    assert snapshot(place)["d/s"] == (stat.S_IFREG | 0o400, NOBODY, NOBODY, b"hush")
    assert snapshot(place)["d"][:3] == (stat.S_IFDIR | 0o750, 0, NOBODY)
    args["files"] = [file(place, "d/a", "y\n", mode="0600")]
    assert both(run, place, **args) == {
        "changed_files": ["d/a"],
        "removed": ["new/deep/b"],
        "directories_removed": ["new/deep", "new"],
    }
    args["directories"] = [{"path": str(place / "d"), "mode": "0700"}]
    assert both(run, place, **args) == {"directories_changed": ["d"]}
    assert both(run, place) == {"removed": ["d/a", "d/s"], "directories_removed": ["d"]}
    assert snapshot(place) == {}


@pytest.mark.parametrize("change", [{"mode": "0600"}, {"owner": "nobody"}, {"group": "nogroup"}, {"content": "other"}])
def test_each_attribute_is_seen_and_mended(run: Run, place: Path, change: dict[str, str]) -> None:
    run(files=[file(place, "a")])
    assert both(run, place, files=[{**file(place, "a"), **change}]) == {"changed_files": ["a"]}
    assert both(run, place, files=[file(place, "a")]) == {"changed_files": ["a"]}


def test_drift_on_disk_is_mended(run: Run, place: Path) -> None:
    args = {"files": [file(place, "a"), file(place, "b")]}
    run(**args)
    (place / "a").unlink()
    (place / "b").write_text("drift")
    assert both(run, place, **args) == {"created": ["a"], "changed_files": ["b"]}


def test_adopts_what_is_the_same_and_shows_what_differs(run: Run, place: Path) -> None:
    (place / "same").write_text("x\n")
    (place / "other").write_text("was\n")
    args = {"files": [file(place, "same"), file(place, "other")]}
    result = run(check=True, **args)
    assert [item["before"] for item in result["diff"]] == ["was\n"]
    assert both(run, place, **args) == {"changed_files": ["other"]}
    assert both(run, place) == {"removed": ["other", "same"]}


def test_adoption_alone_is_no_change_but_is_remembered(run: Run, place: Path) -> None:
    (place / "same").write_text("x\n")
    assert both(run, place, files=[file(place, "same")]) == {}
    assert both(run, place) == {"removed": ["same"]}


def test_prune_false_keeps_and_remembers(run: Run, place: Path) -> None:
    run(files=[file(place, "d/a"), file(place, "b")])
    assert both(run, place, files=[file(place, "b")], prune=False) == {}
    assert both(run, place, files=[file(place, "b")]) == {"removed": ["d/a"], "directories_removed": ["d"]}


def test_directory_with_something_of_others_stays_and_goes_later(run: Run, place: Path) -> None:
    run(files=[file(place, "d/a")])
    (place / "d" / "theirs").write_text("x")
    assert both(run, place) == {"removed": ["d/a"]}
    assert (place / "d" / "theirs").exists()
    (place / "d" / "theirs").unlink()
    assert both(run, place) == {"directories_removed": ["d"]}


def test_directory_that_was_there_is_never_removed(run: Run, place: Path) -> None:
    (place / "d").mkdir(mode=0o755)
    run(files=[file(place, "d/a")], directories=[{"path": str(place / "d")}])
    assert both(run, place) == {"removed": ["d/a"]}
    assert (place / "d").is_dir()


def test_removal_of_what_is_gone_already(run: Run, place: Path) -> None:
    run(files=[file(place, "d/a")])
    (place / "d" / "a").unlink()
    (place / "d").rmdir()
    assert both(run, place) == {}


def test_file_becomes_a_directory_once_it_is_gone(run: Run, place: Path) -> None:
    run(files=[file(place, "a")])
    args = {"files": [file(place, "a/b")], "directories": [{"path": str(place / "a")}]}
    assert "is not a directory" in run(**args)["msg"]
    (place / "a").unlink()
    assert both(run, place, **args) == {"created": ["a/b"], "directories_created": ["a"]}


def test_link_at_the_place_of_a_file_is_replaced(run: Run, place: Path) -> None:
    (place / "victim").write_text("precious")
    (place / "a").symlink_to("victim")
    result = run(files=[file(place, "a")], check=True)
    assert result["diff"][0]["before"] == "symbolic link to victim\n"
    assert both(run, place, files=[file(place, "a")]) == {"changed_files": ["a"]}
    assert (place / "victim").read_text() == "precious"
    (place / "a").unlink()
    (place / "a").symlink_to("victim")
    assert both(run, place) == {"removed": ["a"]}
    assert (place / "victim").exists()


def test_base64_and_binary_diff(run: Run, place: Path) -> None:
    content = base64.b64encode(b"\x00\xff").decode()
    args = {"files": [{"path": str(place / "a"), "content_base64": content}]}
    assert run(check=True, **args)["diff"][0]["after"].startswith("2 bytes, SHA-256 ")
    assert both(run, place, **args) == {"created": ["a"]}
    assert (place / "a").read_bytes() == b"\x00\xff"


def test_sha256_only(run: Run, place: Path) -> None:
    digest = hashlib.sha256(b"x\n").hexdigest()
    args = {"files": [{"path": str(place / "a"), "sha256": digest, "mode": "0755"}]}
    for check in (True, False):
        assert "but does not exist: send its content" in run(check=check, **args)["msg"]
    (place / "a").write_text("other")
    message = run(**args)["msg"]
    assert digest in message
    assert hashlib.sha256(b"other").hexdigest() in message
    (place / "a").write_text("x\n")
    assert both(run, place, **args) == {"changed_files": ["a"]}
    assert snapshot(place)["a"] == (stat.S_IFREG | 0o755, 0, 0, b"x\n")


def test_secrets_are_never_shown(run: Run, place: Path) -> None:
    canary = "c4n4ry-s3cret"
    (place / "b").write_text("0ld-s3cret")
    (place / "b").chmod(0o600)
    args = {
        "secret_files": [
            file(place, "a", canary, validate="grep nothing-like-that %s"),
            {"path": str(place / "c"), "content_base64": base64.b64encode(canary.encode()).decode()},
        ],
        # Not declared secret, but it becomes readable to more people than it was.
        "files": [file(place, "b", "now public", mode="0644")],
    }
    failed = run(**args)
    assert "output not shown" in failed["msg"]
    del args["secret_files"][0]["validate"]
    for result in (failed, run(check=True, **args), run(**args), run()):
        assert canary not in json.dumps(result)
        assert "0ld-s3cret" not in json.dumps(result)
        assert base64.b64encode(canary.encode()).decode() not in json.dumps(result)
    prepared = [item["prepared"] for item in run(check=True, **args)["diff"] if "prepared" in item]
    assert prepared == [f"secret file {place}/a: created\n", f"secret file {place}/c: created\n"]


def test_another_namespace_owns_the_path(run: Run, place: Path) -> None:
    run(files=[file(place, "a")], namespace="first")
    for check in (True, False):
        message = run(files=[file(place, "a", "z")], namespace="second", check=check)["msg"]
        assert "namespace second" in message
        assert "namespace first" in message
    assert (place / "a").read_text() == "x\n"
    assert run(namespace="first")["changed"]
    assert run(files=[file(place, "a", "z")], namespace="second")["created"]


BAD = [
    ({"namespace": "Big"}, "namespace 'Big'"),
    ({"manifest_dir": "relative/../x"}, "manifest_dir"),
    ({"files": [{"path": "a", "content": "x"}]}, "files[0]: 'a' is not absolute"),
    ({"files": [{"path": "/tmp/../x", "content": "x"}]}, "contains '..'"),
    ({"directories": [{"path": "/tmp/a\nb"}]}, "directories[0]: '/tmp/a\\nb' contains a control character"),
    ({"files": [{"path": "/tmp/a"}]}, "exactly one of content, content_base64 and sha256 is needed, not 0"),
    ({"files": [{"path": "/tmp/a", "content": "x", "sha256": "0"}]}, "not 2"),
    ({"files": [{"path": "/tmp/a", "content": {"a": 1}}]}, "content must be a string, not dict"),
    ({"files": [{"path": "/tmp/a", "content_base64": "%%"}]}, "is not base64"),
    ({"files": [{"path": "/tmp/a", "sha256": "zz"}]}, "is not 64 lower case hex digits"),
    ({"files": [{"path": "/tmp/a", "content": "x", "mode": 420}]}, "mode 420 is not 3 or 4 octal digits in quotes"),
    ({"directories": [{"path": "/tmp/a", "mode": "rwx"}]}, "directories[0] (/tmp/a): mode 'rwx'"),
    ({"files": [{"path": "/tmp/a", "content": "x", "owner": "a b"}]}, "owner 'a b' is not the name of an account"),
    ({"files": [{"path": "/tmp/a", "content": "x", "group": "-"}]}, "group '-'"),
    ({"files": [{"path": "/tmp/a", "content": "x", "owner": "no-such"}]}, "its owner no-such does not exist"),
    ({"directories": [{"path": "/tmp/a", "group": "no-such"}]}, "its group no-such does not exist"),
    ({"files": [{"path": "/tmp/a", "content": "x", "validate": "true"}]}, "has no %s"),
    (
        {"files": [{"path": "/tmp/a", "content": "x"}], "secret_files": [{"path": "/tmp/a", "content": "y"}]},
        "/tmp/a is declared twice",
    ),
    (
        {"files": [{"path": "/tmp/a", "content": "x"}], "directories": [{"path": "/tmp/a/b"}]},
        "/tmp/a is declared as a file, and /tmp/a/b lies below it",
    ),
]


@pytest.mark.parametrize(("args", "said"), BAD, ids=[said[:40] for _args, said in BAD])
def test_bad_input_is_one_clear_error(run: Run, place: Path, args: dict[str, Any], said: str) -> None:
    result = run(**args)
    assert result["failed"]
    assert said in result["msg"]
    assert os.listdir(place) == []


def test_directory_and_device_are_not_replaced(run: Run, place: Path) -> None:
    (place / "d").mkdir()
    os.mkfifo(place / "f")
    assert "is a directory: remove it" in run(files=[file(place, "d")])["msg"]
    assert "is neither a file nor a link" in run(files=[file(place, "f")])["msg"]
    run(files=[file(place, "a")])
    (place / "a").unlink()
    (place / "a").mkdir()
    assert "is something else now" in run()["msg"]


def test_check_mode_reports_what_only_the_real_run_can_check(run: Run, place: Path) -> None:
    args = {
        "files": [file(place, "a", owner="no-such", group="no-such"), file(place, "b", validate="/no/such/tool %s")],
        "directories": [{"path": str(place / "d"), "owner": "no-such"}],
    }
    announced = run(check=True, **args)
    assert announced["not_checked"] == [
        f"{place}/d: its owner no-such does not exist",
        f"{place}/a: its owner no-such does not exist",
        f"{place}/a: its group no-such does not exist",
        f"{place}/b: the validator '/no/such/tool %s' is not installed",
    ]
    assert lists(announced, place) == {"created": ["a", "b"], "directories_created": ["d"]}
    assert "make the accounts first" in run(**args)["msg"]
    assert "install what is missing first" in run(files=[args["files"][1]])["msg"]
    assert os.listdir(place) == []
    (place / "a").write_text("x\n")
    assert lists(run(check=True, files=args["files"][:1]), place) == {"changed_files": ["a"]}


def test_all_validators_run_before_the_first_change(run: Run, place: Path) -> None:
    good = file(place, "a", "good\n", validate="grep -q good %s")
    bad = file(place, "b", "bad\n", validate="sh -c 'echo no good in $0; exit 3' %s")
    for check in (True, False):
        message = run(check=check, files=[good, bad, file(place, "c")])["msg"]
        assert f"no good in {place}/b" in message
        assert "status 3" in message
    assert os.listdir(place) == []
    assert both(run, place, files=[good]) == {"created": ["a"]}
    # What is there and stays is not validated again: the converged run costs nothing.
    assert not run(files=[{**good, "validate": "false %s"}])["changed"]
    assert run(files=[{**good, "validate": "false %s", "mode": "0600"}])["changed_files"]


def test_validator_that_hangs(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_validate, "_TIMEOUT", 0.2)
    assert "no answer within" in run(files=[file(place, "a", validate="sh -c 'sleep 5; : $0' %s")])["msg"]


def test_unsafe_directory_is_named(run: Run, place: Path) -> None:
    (place / "theirs").mkdir()
    os.chown(place / "theirs", NOBODY, NOBODY)
    assert f"{place}/theirs belongs to uid {NOBODY}" in run(files=[file(place, "theirs/a")])["msg"]
    declared = {"path": str(place / "theirs"), "owner": "nobody", "group": "nogroup"}
    assert both(run, place, files=[file(place, "theirs/a")], directories=[declared]) == {"created": ["theirs/a"]}
    # It is ours to clean up even when it is not declared any more.
    assert both(run, place) == {"removed": ["theirs/a"]}


def test_planted_link_below_a_declared_directory(run: Run, place: Path) -> None:
    (place / "victim").mkdir()
    (place / "theirs").mkdir()
    os.chown(place / "theirs", NOBODY, NOBODY)
    (place / "theirs" / "sub").symlink_to(place / "victim")
    os.lchown(place / "theirs" / "sub", NOBODY, NOBODY)
    directories = [{"path": str(place / name), "owner": "nobody"} for name in ("theirs", "theirs/sub")]
    assert "symbolic link" in run(files=[file(place, "theirs/sub/a")], directories=directories)["msg"]
    assert os.listdir(place / "victim") == []


def test_hard_link_does_not_change_the_owner_of_a_foreign_file(run: Run, place: Path) -> None:
    (place / "victim").write_text("x\n")
    os.link(place / "victim", place / "a")
    assert both(run, place, files=[file(place, "a", owner="nobody", mode="0666")]) == {"changed_files": ["a"]}
    assert snapshot(place)["victim"][:2] == (stat.S_IFREG | 0o644, 0)


def test_damaged_manifest(run: Run, place: Path) -> None:
    run(files=[file(place, "a")])
    for content in ("{", "{}", '{"version": 1, "files": [1], "directories": {}}'):
        (place / "state/manifests/demo.json").write_text(content)
        for namespace in ("demo", "other"):
            message = run(namespace=namespace)["msg"]
            assert "state/manifests/demo.json is not a" in message
            assert "remove it to start anew" in message


def test_manifest_is_for_root_only_and_odd_names_are_ignored(run: Run, place: Path) -> None:
    run(files=[file(place, "a")])
    info = (place / "state/manifests/demo.json").stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    (place / "state/manifests/README").write_text("x")
    assert not run(files=[file(place, "a")])["changed"]


def test_lock_of_another_run(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(files=[file(place, "a")])
    monkeypatch.setattr(file_tree, "_LOCK_TIMEOUT", 0.0)
    with _files.Tree() as tree:
        tree.lock(str(place / "state/manifests"), timeout=0)
        assert "another run holds" in run(files=[])["msg"]
        assert run(files=[], check=True)["removed"], "check mode waits for nobody"


def test_a_first_run_is_alone_too(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another first run would unlink the temporary file that this one writes."""
    write, held = _files.Tree.write, []

    def watched(tree: _files.Tree, path: str, *content: Any, **meta: Any) -> None:
        with _files.Tree() as other, pytest.raises(TimeoutError):
            other.lock(str(place / "state/manifests"), timeout=0)
        held.append(path)
        write(tree, path, *content, **meta)

    monkeypatch.setattr(_files.Tree, "write", watched)
    assert run(files=[file(place, "a")])["created"] == [str(place / "a")]
    assert str(place / "a") in held


def test_a_first_run_that_another_one_forestalled(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by what the other one left, of which it keeps and removes what every run does."""
    make = _files.Tree.make_parents

    def late(tree: _files.Tree, path: str) -> None:
        monkeypatch.setattr(_files.Tree, "make_parents", make)
        (place / "b").write_text("x")
        with _files.Tree() as other:
            left = _manifest.Manifest(files=frozenset([str(place / "b")]), directories={})
            _manifest.save_manifest(other, str(place / "state/manifests"), "demo", left)
        make(tree, path)

    monkeypatch.setattr(_files.Tree, "make_parents", late)
    done = run(files=[file(place, "c")])
    assert (done["created"], done["removed"]) == ([str(place / "c")], [str(place / "b")])
    assert not run(files=[file(place, "c")])["changed"]


def test_programs_are_written_before_what_they_read(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins between the two would have the old program read what only the new one knows."""
    written, write = [], _files.Tree.write

    def seen(tree: _files.Tree, path: str, content: bytes, **more: Any) -> None:
        written.append(os.path.basename(path))
        write(tree, path, content, **more)

    monkeypatch.setattr(_files.Tree, "write", seen)
    files = [file(place, "b"), file(place, "z/program", mode="0755"), file(place, "a")]
    result = run(files=files)
    assert [each for each in written if not each.endswith(".json")] == ["program", "a", "b"]
    assert [os.path.basename(each) for each in result["created"]] == ["a", "b", "program"]


def test_write_error_is_told(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in run(files=[file(place, "a")])["msg"]


class Killed(BaseException):
    """SIGKILL: no handler runs."""


class DyingOs:
    """The os module for _files, until the n-th system call that changes something."""

    path = os.path

    def __init__(self) -> None:
        self.left = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return functools.partial(self.call, real) if name in CHANGING else real

    def call(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise Killed
        return real(*args, **kwargs)


CHANGING = ("rename", "unlink", "mkdir", "rmdir", "fchown", "fchmod", "fsync", "open")


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Die before the n-th system call that changes something; 0 is never."""
    dying = DyingOs()
    monkeypatch.setattr(_files, "os", dying)

    def arm(step: int) -> None:
        dying.left = step

    return arm


def test_killed_at_any_step_the_next_run_converges(run: Run, place: Path, kill_at: Callable[[int], None]) -> None:
    """From one set to another, killed at every step: the next run ends at the same tree, an empty one leaves nothing."""
    first = {"files": [file(place, "d/a"), file(place, "old/b")], "secret_files": [file(place, "d/s")]}
    second = {
        "files": [file(place, "d/a", "changed\n"), file(place, "new/c")],
        "directories": [{"path": str(place / "own"), "owner": "nobody"}],
    }
    run(**first)
    run(**second)
    wanted = snapshot(place)
    run()
    assert snapshot(place) == {}
    step = 0
    while True:
        step += 1
        run(**first)
        kill_at(step)
        died = False
        try:
            run(**second)
        except Killed:
            died = True
        kill_at(0)
        if step % 2:
            run(**second)
            assert snapshot(place) == wanted, step
            assert not run(check=True, **second)["changed"], step
        # Even straight from the killed state nothing that we wrote is left behind.
        run()
        assert snapshot(place) == {}, step
        if not died:
            break
    assert step > 40


def test_unit_files_are_verified_together_before_the_first_change(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[set[str], set[str]]] = []
    verdict = [_validate.Verdict(errors=("x.timer:3: Unknown key 'Foo'",))]

    def validate(files: dict[str, bytes], provided: list[str], directory: str) -> _validate.Verdict:
        assert os.listdir(directory) == []
        asked.append(({os.path.basename(path) for path in files}, {os.path.basename(path) for path in provided}))
        return verdict[0]

    monkeypatch.setattr(file_tree, "validate_units", validate)
    units = [file(place, name, validate="systemd-unit") for name in ("x.service", "x.timer")]
    files = [*units, file(place, "program")]
    for check in (True, False):
        assert run(check=check, files=files)["msg"] == "x.timer:3: Unknown key 'Foo'"
    assert os.listdir(place) == []
    verdict[0] = _validate.Verdict(not_checked=("x.conf: its unit x is not among the files",))
    assert run(files=files)["not_checked"] == ["x.conf: its unit x is not among the files"]
    assert asked == [({"x.service", "x.timer"}, {"program", "x.service", "x.timer"})] * 3
    # Converged, it is not asked again; one changed unit has all of them verified.
    run(files=files)
    assert len(asked) == 3
    run(files=[{**units[0], "content": "y"}, units[1]])
    assert asked[3][0] == {"x.service", "x.timer"}
