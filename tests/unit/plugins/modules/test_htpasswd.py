# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""htpasswd as Ansible runs it: who gets a line, who keeps it, who loses it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _files
from ansible_collections.holdfast.backup.plugins.module_utils._htpasswd import PLACEHOLDER
from ansible_collections.holdfast.backup.plugins.modules import htpasswd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]
LISTS = ("created", "changed_users", "revoked", "kept", "missing", "refused", "foreign", "switched", "deferred")


def hashed(letter: str, cost: str = "12") -> str:
    return f"$2b${cost}${letter * 53}"


def user(name: str, letter: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": f"{name}--vault", "hash": hashed(letter), "backup_id": name, **more}


@pytest.fixture
def run(run_module: Run, place: Path) -> Run:
    def call(*, check: bool = False, **args: Any) -> dict[str, Any]:
        defaults = {"path": str(place / "etc/htpasswd"), "manifest": str(place / "lib/htpasswd.json"), "fleet_id": "f1"}
        return run_module(htpasswd, {**defaults, **args}, check=check)

    return call


def lists(result: dict[str, Any]) -> dict[str, Any]:
    assert not result["failed"], result
    return {key: result[key] for key in LISTS if result[key]}


def both(run: Run, place: Path, **args: Any) -> dict[str, Any]:
    """Check mode writes nothing and says what the real run does, which the run after it does not do again."""
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    announced = run(check=True, **args)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    real = run(**args)
    assert {k: v for k, v in announced.items() if k != "invocation"} == {
        k: v for k, v in real.items() if k != "invocation"
    }
    assert not run(**args)["changed"]
    assert not run(check=True, **args)["changed"]
    return lists(real)


def text(place: Path) -> str:
    return (place / "etc/htpasswd").read_text()


def test_create_change_revoke(run: Run, place: Path) -> None:
    args = {"users": [user("web1"), user("db1", "b")], "group": "nogroup"}
    assert both(run, place, **args) == {"created": ["db1--vault", "web1--vault"]}
    assert text(place) == f"db1--vault:{hashed('b')}\nweb1--vault:{hashed('a')}\n"
    info = (place / "etc/htpasswd").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, 0, 65534)
    manifest = json.loads((place / "lib/htpasswd.json").read_text())
    assert manifest.pop("hashes").keys() == {"db1--vault", "web1--vault"}
    assert manifest == {"version": 1, "fleet_id": "f1", "users": {"db1--vault": "db1", "web1--vault": "web1"}}
    assert both(run, place, users=[user("web1", "c")], group="nogroup") == {
        "changed_users": ["web1--vault"],
        "revoked": ["db1--vault"],
    }
    assert text(place) == f"web1--vault:{hashed('c')}\n"
    assert list(json.loads((place / "lib/htpasswd.json").read_text())["users"]) == ["web1--vault"]
    assert both(run, place, users=[user("web1", "c")]) == {}
    assert (place / "etc/htpasswd").stat().st_gid == 0


def test_declared_user_without_hash_keeps_the_line(run: Run, place: Path) -> None:
    run(users=[user("web1"), user("db1")])
    args = {"users": [user("web1")], "keep": ["db1--vault", "new--vault"]}
    assert both(run, place, **args) == {"kept": ["db1--vault"], "missing": ["new--vault"]}
    assert "db1--vault:" in text(place)
    # What is kept stays revocable: the manifest still knows whose it is.
    assert both(run, place, users=[user("web1")]) == {"revoked": ["db1--vault"]}


@pytest.mark.parametrize(
    "bad",
    [
        hashed("a", "31"),
        hashed("a", "13"),
        hashed("a", "04"),
        "$2x$12$" + "a" * 53,
        "$2b$12$" + "a" * 52,
        "$2b$12$" + "a" * 54,
        hashed("a") + "\n",
        hashed("a")[:-1] + ":",
        "plain",
        "{SHA}x",
        PLACEHOLDER,
        "",
    ],
)
def test_hostile_hash_is_refused_and_stops_nobody_else(run: Run, place: Path, bad: str) -> None:
    run(users=[user("web1")])
    result = (
        both(run, place, users=[user("web1", hash=bad), user("db1")])
        if bad != PLACEHOLDER
        else lists(run(users=[user("web1", hash=bad), user("db1")]))
    )
    assert result == {"refused": ["web1--vault"], "created": ["db1--vault"]}
    assert text(place) == f"db1--vault:{hashed('a')}\nweb1--vault:{hashed('a')}\n"
    new = run(users=[user("web1"), user("db1"), user("x", hash=bad)])
    assert lists(new) == {"refused": ["x--vault"]}
    assert "x--vault" not in text(place)


@pytest.mark.parametrize("prefix", ["$2a$", "$2y$", "$2b$"])
def test_all_spellings_of_bcrypt(run: Run, place: Path, prefix: str) -> None:
    assert both(run, place, users=[user("a", hash=f"{prefix}12${'x' * 53}")]) == {"created": ["a--vault"]}


def test_another_cost(run: Run, place: Path) -> None:
    assert both(run, place, users=[user("a", hash=hashed("x", "10"))], cost=10) == {"created": ["a--vault"]}


def test_placeholder_in_check_mode(run: Run, place: Path) -> None:
    announced = run(check=True, users=[user("web1", hash=PLACEHOLDER)])
    assert (lists(announced), announced["changed"]) == ({"created": ["web1--vault"]}, True)


def test_next_hash_of_a_hostile_form_is_refused(run: Run) -> None:
    assert lists(run(users=[user("web1", next_hash=hashed("n", "31"))]))["refused"] == ["web1--vault"]


def test_rotation(run: Run, place: Path) -> None:
    idle, busy = user("web1", next_hash=hashed("n"), busy=False), user("db1", next_hash=hashed("m"), busy=True)
    unknown = user("x", next_hash=hashed("o"))
    run(users=[user("web1"), user("db1"), user("x")])
    # Without switch a next password is none of the server's business.
    assert both(run, place, users=[idle, busy, unknown]) == {}
    real = run(users=[idle, busy, unknown], switch=True)
    assert lists(real) == {
        "changed_users": ["web1--vault"],
        "switched": ["web1--vault"],
        "deferred": ["db1--vault", "x--vault"],
    }
    assert f"web1--vault:{hashed('n')}" in text(place)
    # There is no way back, also without switch and when it is busy now.
    for switch in (True, False):
        result = run(users=[{**idle, "busy": True}, busy, unknown], switch=switch)
        assert not result["changed"]
        # A run that ended before the client knew is made good by the next.
        assert result["switched"] == ["web1--vault"]
    # The client has taken the new one for its current one.
    assert not run(users=[user("web1", "n"), busy, unknown])["changed"]


def stored(letter: str, following: str | None = None, **more: Any) -> dict[str, Any]:
    """What a state directory remembers of web2, which this run did not hear."""
    next_hash = {"next_hash": hashed(following)} if following else {}
    return user("web2", letter, heard=False, **{"busy": False, **next_hash, **more})


def test_what_was_replaced_does_not_come_back_by_an_old_state_directory(run: Run, place: Path) -> None:
    """Who stole a password is let in no more, and the client is not kept out; what a client says itself counts."""
    path = place / "etc/htpasswd"
    run(users=[user("web1"), user("web2")])
    run(users=[user("web1"), user("web2", "b")])
    good = text(place)
    for old in (stored("a"), stored("a", "b")):
        announced, real = (run(check=check, users=[user("web1"), old], switch=True) for check in (True, False))
        assert text(place) == good, old
        assert (announced["changed"], real["changed"]) == (False, False)
    assert lists(run(users=[user("web1"), stored("a")])) == {"kept": ["web2--vault"]}
    # What somebody wrote there by hand is nobody's: neither it nor what was replaced lets anybody in.
    path.write_text(good.replace(hashed("b"), hashed("x")))
    assert both(run, place, users=[user("web1"), stored("a")]) == {"missing": ["web2--vault"]}
    assert text(place) == f"web1--vault:{hashed('a')}\n"
    # A state directory of today, and the client itself, have it again.
    assert both(run, place, users=[user("web1"), stored("b")]) == {"created": ["web2--vault"]}
    path.write_text(good.replace(hashed("b"), hashed("x")))
    assert both(run, place, users=[user("web1"), stored("b")]) == {"changed_users": ["web2--vault"]}
    assert both(run, place, users=[user("web1"), user("web2")]) == {"changed_users": ["web2--vault"]}
    assert both(run, place, users=[user("web1"), stored("a")]) == {}
    # One that this server never had is newer than what it has: a hand-over file brought it.
    assert both(run, place, users=[user("web1"), stored("n")]) == {"changed_users": ["web2--vault"]}


def test_what_was_revoked_does_not_come_back_by_an_old_state_directory(run: Run, place: Path) -> None:
    run(users=[user("web1"), user("web2")])
    run(users=[user("web1")], phase="revoke")
    assert both(run, place, users=[user("web1"), stored("a")]) == {"missing": ["web2--vault"]}
    assert "web2" not in text(place)
    # Of somebody else's client, whom no run hears, a next password brings it back.
    assert both(run, place, users=[user("web1"), stored("a", "n")], switch=True)["created"] == ["web2--vault"]
    assert hashed("n") in text(place)
    assert both(run, place, users=[user("web1")]) == {"revoked": ["web2--vault"]}
    assert both(run, place, users=[user("web1"), user("web2")]) == {"created": ["web2--vault"]}


def forget(place: Path) -> None:
    """The manifest is that of the version before, which had no digests."""
    path = place / "lib/htpasswd.json"
    manifest = json.loads(path.read_text())
    del manifest["hashes"]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("lost", [False, True])
def test_what_nothing_is_remembered_of_is_not_retired_by_an_old_state_directory(
    run: Run, place: Path, lost: bool
) -> None:
    """Nobody knows which is older, and the newest state directory has to bring the client back."""
    run(users=[user("web1"), user("web2", "b")])
    if lost:
        (place / "lib/htpasswd.json").unlink()
    else:
        forget(place)
    assert both(run, place, users=[user("web1"), stored("a")]) == {"changed_users": ["web2--vault"]}
    assert both(run, place, users=[user("web1"), stored("b")]) == {"changed_users": ["web2--vault"]}
    # From here on it is known.
    assert both(run, place, users=[user("web1"), stored("a")]) == {"kept": ["web2--vault"]}
    # What a client says itself replaces what was there, whoever wrote that.
    forget(place)
    run(users=[user("web1"), user("web2", "c")])
    assert both(run, place, users=[user("web1"), stored("b")]) == {"kept": ["web2--vault"]}
    assert f"web2--vault:{hashed('c')}" in text(place)


def test_what_was_served_last_is_not_forgotten_for_a_line_that_somebody_edited(run: Run, place: Path) -> None:
    path = place / "etc/htpasswd"
    run(users=[user("web1"), user("web2", "b")])
    path.write_text(text(place).replace(hashed("b"), hashed("x")))
    run(users=[user("web1"), stored("b")], phase="revoke")
    run(users=[user("web1"), user("web2", "c")])
    # The client rotated; who has a state directory from before lets nobody in by it.
    assert both(run, place, users=[user("web1"), stored("b")]) == {"kept": ["web2--vault"]}
    assert f"web2--vault:{hashed('c')}" in text(place)


def test_a_change_that_its_client_did_not_hear_of_is_no_old_state_directory(run: Run, place: Path) -> None:
    run(users=[user("web2")])
    idle = user("web2", next_hash=hashed("b"), busy=False)
    assert run(users=[idle], switch=True)["switched"] == ["web2--vault"]
    again = run(users=[stored("a", "b")], switch=True)
    assert (lists(again), again["changed"]) == ({"switched": ["web2--vault"]}, False)
    # Where what it would change to is another one, that waits for its backup as always.
    waits = lists(run(users=[stored("a", "c", busy=True)], switch=True))
    # What the state directory has is not what is served, and is told.
    assert waits == {"deferred": ["web2--vault"], "kept": ["web2--vault"]}
    assert lists(run(users=[stored("a", "c")])) == {"kept": ["web2--vault"]}
    assert hashed("b") in text(place)


def test_an_old_state_directory_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(htpasswd.AnsibleModule, "warn", lambda _module, words: told.append(words))
    run(users=[user("web2")])
    run(users=[user("web2", "b")])
    for check in (True, False):
        run(users=[stored("a")], check=check)
        (warning,) = told
        assert "web2--vault: the state directory has a password hash that this server replaced or revoked" in warning
        assert "the line of web2--vault that this server has stays" in warning
        assert "newest state directory" in warning
        told.clear()
    run(users=[])
    run(users=[stored("a")])
    assert "web2--vault is not served" in told[-1]


def write(place: Path, content: str) -> None:
    (place / "etc").mkdir(mode=0o755, exist_ok=True)
    (place / "etc/htpasswd").write_text(content)


def test_foreign_lines(run: Run, place: Path) -> None:
    content = f"web1--vault:{hashed('a')}\nmallory:{{SHA}}x\n# comment\n\nno colon\n"
    write(place, content)
    expected = ["line 3", "line 5", "mallory"]
    assert lists(run(check=True, users=[user("web1")])) == {"foreign": expected}
    assert lists(run(users=[user("web1")], adopt_foreign="keep")) == {"foreign": expected}
    assert text(place) == f"mallory:{{SHA}}x\nweb1--vault:{hashed('a')}\n"
    assert lists(run(users=[user("web1")], adopt_foreign="keep")) == {"foreign": ["mallory"]}
    assert both(run, place, users=[user("web1")]) == {"foreign": ["mallory"]}
    assert text(place) == f"web1--vault:{hashed('a')}\n"


def test_duplicates(run: Run, place: Path) -> None:
    run(users=[user("web1")])
    write(place, f"web1--vault:{hashed('z')}\nweb1--vault:{hashed('a')}\ndouble:x\ndouble:y\n")
    assert both(run, place, users=[user("web1")]) == {"changed_users": ["web1--vault"], "foreign": ["double"]}
    assert text(place) == f"web1--vault:{hashed('a')}\n"
    write(place, f"web1--vault:{hashed('z')}\nweb1--vault:{hashed('y')}\n")
    assert both(run, place, users=[user("web1")]) == {"changed_users": ["web1--vault"]}


def test_what_is_removed_or_not_known_is_told(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(htpasswd.AnsibleModule, "warn", lambda _self, text: told.append(text))
    users = [user("web1"), user("db1", "b")]
    run(users=users)
    assert not told
    path = place / "etc/htpasswd"
    path.write_text(
        f"eve:{hashed('e')}\n{text(place)}web1--vault:{hashed('z')}\njunk\n" + "\n".join(f"x{n}:h" for n in range(5))
    )
    cure = "run the playbook where these clients can be reached, and without a --limit that leaves them out"
    texts = [
        f"{path}: eve, line 5, x0, x1, x2 and 2 more: does not belong there, since no client has it and rest_server_users does not "
        "declare it: it is removed",
        f"{path}: web1--vault: has more than one line: one stays",
        f"{path}: bad--vault: has no password hash of bcrypt at cost 12, which is refused: the line that this server has stays",
        f"{path}: db1--vault: has no password hash that is known: the line that this server has stays: {cure}",
        f"{path}: new--vault: has no password hash that is known, and is not served: {cure}",
    ]
    args = {"users": [user("web1"), user("bad", hash="x")], "keep": ["db1--vault", "new--vault"]}
    for check in (True, False):
        told.clear()
        run(**args, check=check)
        assert told == texts
    told.clear()
    assert not run(users=users)["changed"]
    assert not told
    # Kept on purpose.
    path.write_text(text(place) + f"eve:{hashed('e')}\n")
    run(users=users, adopt_foreign="keep")
    assert not told


def test_revoking_too_many_hosts(run: Run, place: Path) -> None:
    names = ("a", "b", "c")
    two_each = [{**user(name), "name": f"{name}--{repo}"} for name in names for repo in ("vault", "offsite")]
    run(users=two_each)
    before = text(place)
    for check in (True, False):
        message = run(check=check, users=two_each[:2], revoke_max=1)["msg"]
        assert "2 hosts would lose access (b, c)" in message
        assert "backup_revoke_max" in message
        assert "is 1" in message
    assert text(place) == before
    # Two users of one host are one host.
    revoked = both(run, place, users=two_each[:4], revoke_max=1)["revoked"]
    assert revoked == ["c--offsite", "c--vault"]
    assert len(both(run, place, users=[], revoke_max=2)["revoked"]) == 4


def test_a_lost_manifest_is_no_licence_to_revoke(run: Run, place: Path) -> None:
    """Half an inventory, and /var/lib/holdfast of the server gone: nobody knows whose the other lines are."""
    names = ("a", "b", "c")
    content = "".join(f"{name}--{repo}:{hashed('x')}\n" for name in names for repo in ("offsite", "vault"))
    write(place, content)
    for check in (True, False):
        message = run(check=check, users=[{**user("a"), "name": "a--vault"}], revoke_max=1)["msg"]
        assert "3 hosts would lose access (a, b, c)" in message
    assert text(place) == content
    both_of_a = [{**user("a"), "name": f"a--{repo}", "hash": hashed("x")} for repo in ("offsite", "vault")]
    assert "2 hosts would lose access (b, c)" in run(users=both_of_a, revoke_max=1)["msg"]
    assert text(place) == content
    assert len(both(run, place, users=both_of_a, revoke_max=2)["foreign"]) == 4


def test_where_nothing_else_works_access_is_only_taken_away(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a server that cannot follow: nobody gets a line or another password, and no warning says what to do about it."""
    told: list[str] = []
    monkeypatch.setattr(htpasswd.AnsibleModule, "warn", lambda _self, text: told.append(text))
    run(users=[user("web1"), user("db1", "b"), user("old", "c")], keep=[])
    write(place, text(place) + f"hand:{hashed('d')}\n")
    users = [user("web1", "x", next_hash=hashed("y"), busy=False), user("db1", "b"), user("new", "e")]
    done = both(run, place, users=users, keep=["later--vault"], switch=True, phase="revoke", revoke_max=1)
    assert done == {"revoked": ["old--vault"], "foreign": ["hand"]}
    assert text(place) == f"db1--vault:{hashed('b')}\nweb1--vault:{hashed('a')}\n"
    manifest = json.loads((place / "lib/htpasswd.json").read_text())
    assert manifest["users"] == {"db1--vault": "db1", "web1--vault": "web1"}
    assert {each.partition(": ")[2] for each in told} <= {
        "hand: does not belong there, since no client has it and rest_server_users does not declare it: it is removed"
    }
    refused = run(users=[], phase="revoke", revoke_max=1)
    assert "2 hosts would lose access" in refused["msg"]


def test_extra_user_counts_by_its_name(run: Run, place: Path) -> None:
    run(users=[{"name": "metrics", "hash": hashed("a")}, {"name": "other", "hash": hashed("a")}])
    assert "other, metrics" not in run(users=[], revoke_max=1)["msg"]
    assert "(metrics, other)" in run(users=[], revoke_max=1)["msg"]


def test_another_fleet(run: Run, place: Path) -> None:
    run(users=[user("web1")])
    before = text(place)
    for fleet_id in ("f2", ""):
        for check in (True, False):
            message = run(check=check, fleet_id=fleet_id, users=[])["msg"]
            assert "serves the fleet 'f1'" in message
            assert "use the state directory of that fleet" in message
    assert text(place) == before


def test_no_fleet_id(run: Run) -> None:
    assert "fleet_id is empty" in run(fleet_id="")["msg"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"users": [user("a:b")]}, "'a:b--vault' is not a user name"),
        ({"keep": ["a\nb"]}, "'a\\nb' is not a user name"),
        ({"users": [user("a")], "keep": ["a--vault"]}, "declared twice"),
        ({"path": "/a/../b"}, "path: '/a/../b' contains"),
        ({"mode": 416}, "octal digits in quotes"),
        ({"owner": "no-such"}, "its owner no-such does not exist: make the account"),
        ({"group": "no-such"}, "its group no-such does not exist"),
    ],
)
def test_bad_input(run: Run, place: Path, args: dict[str, Any], said: str) -> None:
    assert said in run(**args)["msg"]
    assert os.listdir(place) == []


def test_check_mode_without_the_account(run: Run) -> None:
    result = run(check=True, users=[user("a")], owner="no-such", group="no-such")
    assert len(result["not_checked"]) == 2
    assert result["created"] == ["a--vault"]


def test_hashes_are_never_shown(run: Run, place: Path) -> None:
    run(users=[user("web1"), user("old")])
    result = run(users=[user("web1", "c", next_hash=hashed("n")), user("db1", "d")])
    said = json.dumps(result)
    assert not any(letter * 53 in said for letter in "acdn")
    assert result["diff"]["before"] == "old--vault\nweb1--vault\n"
    assert result["diff"]["after"] == "db1--vault\nweb1--vault (another hash)\n"


def test_damaged_manifest_and_odd_files(run: Run, place: Path) -> None:
    run(users=[user("a")])
    (place / "lib/htpasswd.json").write_text('{"version": 1}')
    assert "restore it from a backup" in run(users=[])["msg"]
    (place / "lib/htpasswd.json").unlink()
    (place / "etc/htpasswd").unlink()
    (place / "etc/htpasswd").mkdir()
    assert "is not a file" in run(users=[])["msg"]


def test_link_is_replaced_and_theirs_refused(run: Run, place: Path) -> None:
    (place / "victim").write_text("precious")
    (place / "etc").mkdir(mode=0o755)
    (place / "etc/htpasswd").symlink_to(place / "victim")
    assert lists(run(users=[user("a")])) == {"created": ["a--vault"]}
    assert (place / "victim").read_text() == "precious"
    os.chown(place / "etc", 65534, 65534)
    assert "belongs to uid 65534" in run(users=[])["msg"]


def test_killed_between_the_files(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written last, the next run revokes what the fleet once put there, and calls nobody foreign."""

    class Killed(BaseException):
        pass

    real = _files.Tree.write
    for die_at in (1, 2, 3):
        run(users=[user("web1")])
        left = [die_at]

        # pylint: disable-next=dangerous-default-value # shared on purpose
        def write(self: _files.Tree, *args: Any, left: list[int] = left, **kwargs: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            real(self, *args, **kwargs)

        monkeypatch.setattr(_files.Tree, "write", write)
        with pytest.raises(Killed):
            run(users=[user("db1"), user("web1", "b")])
        monkeypatch.setattr(_files.Tree, "write", real)
        # What is there lets in whom it let in, and an old state directory brings nothing else.
        before = text(place)
        run(users=[user("db1", heard=False), user("web1", heard=False)])
        assert [line for line in text(place).splitlines() if line.startswith("web1")] == [
            line for line in before.splitlines() if line.startswith("web1")
        ]
        assert run(users=[])["foreign"] == []
        assert text(place) == ""


def test_write_error_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in run(users=[user("a")])["msg"]


def test_a_backup_that_began_after_its_client_was_asked(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a lock on the server, and its password stays until it ends; what a killed run left is not waited for."""
    users = [user("web1", next_hash=hashed("n"), busy=False), user("web2", next_hash=hashed("n"), busy=False)]
    args = {"users": users, "repositories": str(place / "srv"), "switch": True}
    run(**{**args, "switch": False})
    lock = place / "srv/web1--vault/locks/0123"
    lock.parent.mkdir(parents=True)
    lock.write_text("x")
    (place / "srv/web2--vault").mkdir()
    (place / "srv/web2--vault/locks").symlink_to(lock.parent)
    assert lists(run(check=True, **args))["deferred"] == ["web1--vault", "web2--vault"]
    (place / "srv/web2--vault/locks").unlink()
    assert both(run, place, **args)["deferred"] == ["web1--vault"]
    now = lock.stat().st_mtime
    # Whoever stole the password can write such a file, as often as need be.
    assert lists(run(check=True, **args, switch_busy=True))["switched"] == ["web1--vault", "web2--vault"]
    # A clock was wrong.
    os.utime(lock, (now + 3600, now + 3600))
    assert "deferred" not in lists(run(check=True, **args))
    # What goes while it is looked at says nothing of the others.
    os.utime(lock, (now, now))
    listed = os.listdir
    with monkeypatch.context() as patch:
        patch.setattr(htpasswd.os, "listdir", lambda directory: ["went", *listed(directory)])
        assert lists(run(check=True, **args))["deferred"] == ["web1--vault"]
    os.utime(lock, (now - 31 * 60, now - 31 * 60))
    assert both(run, place, **args)["switched"] == ["web1--vault", "web2--vault"]
