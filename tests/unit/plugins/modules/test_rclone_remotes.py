# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rclone_remotes as Ansible runs it, with the real rclone and a real S3 store (rclone serve s3) on this machine."""

from __future__ import annotations

import base64
import grp
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _rclone as engine
from ansible_collections.holdfast.backup.plugins.modules import rclone_remotes

from tests.unit.plugins.modules.s3_store import RCLONE, SECRET, serving

Run = Callable[..., dict[str, Any]]
GROUP = "daemon"
NOBODY = 65534

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not RCLONE, reason="runs rclone as another account: needs root, and rclone"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The options of a store with one bucket."""
    data = tmp_path_factory.mktemp("store")
    (data / "bucket1/there").mkdir(parents=True)
    with serving(data) as options:
        yield options


@pytest.fixture
def remote(store: dict[str, str]) -> dict[str, Any]:
    return entry("s3", store)


def entry(name: str, options: dict[str, str], *places: str) -> dict[str, Any]:
    return {
        "name": name, "type": options["type"], "config": engine.render(name, options), "group": GROUP,
        "accounts": ["bk-none"], "places": list(places) or ["bucket1/fleet"],
    }  # fmt: skip


def with_option(remote: dict[str, Any], **change: str) -> dict[str, Any]:
    return {**remote, "config": engine.render(remote["name"], {**engine.parse(remote["config"]), **change})}


@pytest.fixture
def apply(run_module: Run, place: Path) -> Run:
    place.chmod(0o755)

    def run(*remotes: dict[str, Any], check: bool = False, **change: Any) -> dict[str, Any]:
        paths = {"directory": str(place / "rclone"), "record": str(place / "record.json"), "binary": RCLONE}
        sent = [{**remote, "config": base64.b64encode(remote["config"].encode()).decode()} for remote in remotes]
        return run_module(rclone_remotes, {"remotes": sent, **paths, **change}, check=check)

    return run


def test_written_when_it_was_listed_and_then_unchanged(apply: Run, place: Path, remote: dict[str, Any]) -> None:
    announced = apply(remote, check=True)
    assert announced["changed"]
    assert announced["not_checked"] == ["s3: is listed by the real run only"]
    assert not (place / "rclone").exists()
    done = apply(remote)
    path = place / "rclone/s3.conf"
    assert done["changed"] == announced["changed"]
    assert (
        (done["listed"], done["changed_files"])
        == (announced["listed"], announced["changed_files"])
        == (["s3"], [str(path)])
    )
    assert engine.parse(path.read_text()) == engine.parse(remote["config"])
    info = path.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (0, grp.getgrnam(GROUP).gr_gid, 0o640)
    assert SECRET not in json.dumps({key: value for key, value in done.items() if key != "invocation"})
    assert SECRET not in json.dumps(done.get("invocation", {}))
    assert stat.S_IMODE((place / "record.json").stat().st_mode) == 0o600
    assert list((place / "rclone").iterdir()) == [path]
    for check in (False, True):
        again = apply(remote, check=check)
        assert (again["changed"], again["listed"], again["diff"]) == (False, [], [])


def test_a_file_that_was_changed_by_hand_comes_back_without_another_listing(
    apply: Run, place: Path, remote: dict[str, Any]
) -> None:
    apply(remote)
    path = place / "rclone/s3.conf"
    path.chmod(0o644)
    done = apply(remote)
    assert (done["changed"], done["listed"]) == (True, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_remote_that_is_gone_takes_its_secret_with_it(apply: Run, place: Path, remote: dict[str, Any]) -> None:
    apply(remote)
    assert apply(check=True)["removed"] == [str(place / "rclone/s3.conf")]
    done = apply()
    assert (done["changed"], done["removed"]) == (True, [str(place / "rclone/s3.conf")])
    assert not list((place / "rclone").iterdir())
    assert not apply()["changed"]


class Killed(BaseException):
    """What no handler of the module catches, as a signal that ends it."""


@pytest.mark.parametrize("moment", ["listing", "writing", "recording"])
def test_what_a_killed_run_left_goes_with_its_remote(
    apply: Run, place: Path, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It has the secret, and nobody would look for it where the remote is gone before the next run."""
    rename, unlink = os.rename, rclone_remotes.Tree.unlink

    def killed(source: str, target: str, **options: Any) -> None:
        if moment == "writing" and target == "s3.conf":
            raise Killed
        if moment == "recording" and target == "record.json" and (place / "rclone/s3.conf").exists():
            raise Killed
        rename(source, target, **options)

    def left(self: Any, path: str) -> None:
        if moment == "listing" and path.endswith(".candidate"):
            raise Killed
        unlink(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        patch.setattr(rclone_remotes.Tree, "unlink", left)
        with pytest.raises(Killed):
            apply(remote)
    found = [path for path in (place / "rclone").iterdir() if SECRET in path.read_text()]
    assert len(found) == 1
    # The record is there, by which the role is known to have something to do.
    assert (place / "record.json").exists()
    announced = apply(check=True)
    assert announced["changed"]
    assert found[0].exists()
    done = apply()
    assert (done["changed"], done["removed"]) == (True, announced["removed"])
    assert not list((place / "rclone").iterdir())
    assert not apply()["changed"]


def test_what_a_killed_run_left_of_a_remote_that_stays_goes_too(
    apply: Run, place: Path, remote: dict[str, Any]
) -> None:
    """Its change was taken back, so nothing is listed, and no other file takes its place."""
    apply(remote)
    (place / "rclone/.s3.candidate").write_text(SECRET)
    assert apply(remote, check=True)["changed"]
    assert apply(remote)["changed"]
    assert [path.name for path in (place / "rclone").iterdir()] == ["s3.conf"]
    assert not apply(remote)["changed"]


def test_a_store_that_does_not_answer_keeps_no_secret_of_another(
    apply: Run, place: Path, remote: dict[str, Any]
) -> None:
    other = {**remote, "name": "other", "config": remote["config"].replace("[s3]", "[other]")}
    apply(remote, other)
    before = (place / "rclone/s3.conf").read_bytes()
    failed = apply(with_option(remote, endpoint="http://127.0.0.1:9"))
    assert failed["failed"]
    assert "its file was not changed" in failed["msg"]
    assert [(path.name, path.read_bytes()) for path in (place / "rclone").iterdir()] == [("s3.conf", before)]
    assert apply(remote)["changed"]
    assert not apply(remote)["changed"]


@pytest.mark.parametrize(
    ("change", "places", "words"),
    [
        (
            {"secret_access_key": "W0ngSecret"},
            (),
            "s3.secret_access_key: s3:bucket1/fleet/ cannot be listed: the secret key is wrong",
        ),
        (
            {"access_key_id": "W0ngSecret"},
            (),
            "s3.access_key_id: s3:bucket1/fleet/ cannot be listed: the store does not know",
        ),
        ({}, ("bucket1", "absent/x"), "rclone_proxy_remotes.s3: s3:absent/x/ cannot be listed: it does not exist"),
        (
            {"endpoint": "http://127.0.0.1:9"},
            (),
            "s3.endpoint: s3:bucket1/fleet/ cannot be listed: the store does not answer",
        ),
        (
            {"endpoint": "http://store.invalid"},
            (),
            "s3.endpoint: s3:bucket1/fleet/ cannot be listed: the name of the store",
        ),
    ],
)
def test_what_cannot_be_listed_is_not_written(
    apply: Run, place: Path, remote: dict[str, Any], change: dict[str, str], places: tuple[str, ...], words: str
) -> None:
    bad = with_option(remote, **change)
    bad["places"] = list(places) or bad["places"]
    failed = apply(bad)
    assert failed["failed"]
    assert words in failed["msg"]
    assert "W0ngSecret" not in failed["msg"]
    assert SECRET not in failed["msg"]
    assert not list((place / "rclone").iterdir())
    # The control: the same remote as it should be. After it a bad one leaves the good file alone, and is tried each time.
    assert not apply(remote)["failed"]
    before = (place / "rclone/s3.conf").read_bytes()
    assert apply(bad)["failed"]
    assert (place / "rclone/s3.conf").read_bytes() == before
    assert not apply(remote)["changed"]


def test_a_store_that_never_answers_has_its_time(apply: Run, remote: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        failed = apply(with_option(remote, endpoint=endpoint), timeout=1.5)
    assert "does not answer in time" in failed["msg"]
    assert "rclone_proxy_remotes.s3.endpoint" in failed["msg"]


def test_it_is_listed_as_an_account_that_only_the_group_lets_read(
    apply: Run, place: Path, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = rclone_remotes.run

    def watch(argv: list[str], **options: Any) -> Any:
        if "lsf" in argv:
            candidate = argv[argv.index("--config") + 1]
            prefix = argv[: argv.index(RCLONE)]
            identity = real(
                [*prefix, "sh", "-c", f"id -u; id -G; test -r {candidate} && test ! -w {candidate}"], timeout=10
            )
            info = os.stat(candidate)
            seen.append((identity.code, identity.stdout.split(), stat.S_IMODE(info.st_mode), info.st_uid))
        return real(argv, **options)

    monkeypatch.setattr(rclone_remotes, "run", watch)
    apply(remote)
    assert seen == [(0, [str(NOBODY), str(NOBODY), str(grp.getgrnam(GROUP).gr_gid)], 0o640, 0)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"type": "s3", "regoin": "x"},
            "rclone_proxy_remotes.x.regoin: is not an option of the rclone of this host. Is meant: region",
        ),
        ({"type": "s3", "zzzz": "x"}, "see rclone's documentation"),
        (
            {"type": "nonsense"},
            "rclone_proxy_remotes.x.type = 'nonsense': the rclone of this host was built without it",
        ),
    ],
)
def test_options_that_this_rclone_does_not_have(apply: Run, place: Path, options: dict[str, str], words: str) -> None:
    for check in (True, False):
        failed = apply(entry("x", options), check=check)
        assert words in failed["msg"]
    assert not (place / "rclone").exists()


def test_a_directory_that_the_account_cannot_reach(apply: Run, place: Path, remote: dict[str, Any]) -> None:
    place.chmod(0o700)
    assert "the account cannot read its file" in apply(remote)["msg"]


def program(place: Path, text: str) -> str:
    path = place / "fake"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_old_rclone_serves_directories_only(apply: Run, place: Path, remote: dict[str, Any]) -> None:
    old = program(place, "echo rclone v1.60.1-DEV")
    assert "CVE-2026-71309" in apply(remote, binary=old)["msg"]
    assert apply(binary=old)["version"] == "1.60.1"
    assert "does not say that it is rclone" in apply(binary=program(place, "echo nothing"))["msg"]
    missing = str(place / "missing")
    assert "is not on this host" in apply(remote, binary=missing)["msg"]
    announced = apply(remote, binary=missing, check=True)
    assert (announced["changed"], announced["version"]) == (True, None)
    assert len(announced["not_checked"]) == 2


def test_a_missing_group_is_made(
    apply: Run, place: Path, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []
    monkeypatch.setattr(rclone_remotes, "group_id", lambda name: NOBODY if name in made else None)
    ran: list[list[str]] = []

    def run_command(_module: Any, argv: list[str], **_options: Any) -> tuple[int, str, str]:
        ran.append(argv)
        made.append(argv[-1])
        return 0, "", ""

    monkeypatch.setattr(rclone_remotes.AnsibleModule, "run_command", run_command)
    new = {**remote, "group": "hfr-s3"}
    announced = apply(new, check=True)
    assert (announced["groups_created"], ran) == (["hfr-s3"], [])
    assert apply(new)["groups_created"] == ["hfr-s3"]
    assert ran == [["groupadd", "--system", "hfr-s3"]]
    assert not apply(new)["changed"]
    monkeypatch.setattr(rclone_remotes, "group_id", lambda _name: None)
    assert "look at /etc/group" in apply(new)["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "name '../x'"),
        ({"group": "a b"}, "group 'a b'"),
        ({"name": "other"}, "does not hold this remote alone"),
        ({"config": "[s3]\ntype = s3\n[x]\ntype = local\n"}, "does not hold this remote alone"),
        ({"places": ["a/../b"]}, "is not a plain path"),
        ({"places": ["a\nb"]}, "is not a plain path"),
    ],
)
def test_what_a_caller_may_not_ask_for(apply: Run, remote: dict[str, Any], change: dict[str, Any], words: str) -> None:
    assert words in apply({**remote, **change})["msg"]


def test_what_ansible_logs_of_the_module_holds_no_secret(
    apply: Run, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(rclone_remotes.AnsibleModule, "log", lambda _module, text, **_rest: logged.append(str(text)))
    apply(remote)
    assert any("bucket1" in text for text in logged)
    for secret in (SECRET, base64.b64encode(remote["config"].encode()).decode()):
        assert not any(secret in text for text in logged)


def test_config_has_to_be_base64(run_module: Run, remote: dict[str, Any]) -> None:
    assert "is not text in base64" in run_module(rclone_remotes, {"remotes": [remote]})["msg"]


def test_a_name_given_twice_and_a_damaged_record(apply: Run, place: Path, remote: dict[str, Any]) -> None:
    assert "given twice" in apply(remote, remote)["msg"]
    (place / "record.json").write_text("no")
    assert "record.json is not a JSON file" in apply(remote)["msg"]
