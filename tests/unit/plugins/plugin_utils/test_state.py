# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state directory: where it is, what may be in it, and how it is changed."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.plugin_utils import _state

HASH = "$2b$12$" + "a" * 53
KEYS = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOY",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwQ1vO8nJ9d6yqQpuyXkFBr1dVXtn9Pfx9YlyoHRTOZ",
]
REST = {"user": "web1--vault", "hash": HASH, "next_hash": None}
AGE_NAME = f"{'0' * 32}-{'1' * 16}.age"
AGE = {"b64": base64.b64encode(b"age-encryption.org/v1\nx\xff").decode()}
AGE_PATH = f"escrow/vault/{AGE_NAME}"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that is not there yet, in a project that its group may write."""
    project = tmp_path / "project"
    project.mkdir()
    project.chmod(0o775)
    return project / "holdfast-state"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CA certificate."""
    work = tmp_path_factory.mktemp("ca")
    return _tls.certificate_part(_tls.make_authority(["vault1"], 1_800_000_000, str(work)))


def update(
    state: Path, write: dict[str, Any] | None = None, host: str | None = "web1", **options: Any
) -> _state.Change:
    return _state.update(str(state), host, write=write or {}, **options)


def modes(state: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in [state, *state.rglob("*")]}


# --- where it is


def test_an_absolute_path_is_taken(tmp_path: Path) -> None:
    assert _state.resolve_state_dir(f"{tmp_path}/x/../state", ["host,"]) == f"{tmp_path}/state"
    assert _state.resolve_state_dir("~/state", []) == os.path.expanduser("~/state")


def test_a_relative_path_is_beside_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    file = tmp_path / "hosts.yml"
    other = tmp_path / "more.yml"
    file.touch()
    other.touch()
    assert _state.resolve_state_dir("state", [str(file), str(other)]) == str(tmp_path / "state")
    # Inside the inventory directory Ansible would read it as inventory.
    assert _state.resolve_state_dir("state", [str(tmp_path / "inventory") + "/"]) == str(tmp_path / "state")


@pytest.mark.parametrize("value", ["", "a\nb"])
def test_no_path_at_all(value: str) -> None:
    with pytest.raises(ValueError, match="backup_state_dir"):
        _state.resolve_state_dir(value, [])


def test_no_durable_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for sources, word in (
        (["web1,"], "'web1,' is no file"),
        ([], "none"),
        ([str(tmp_path / "one"), str(tmp_path / "two")], "not exactly one"),
    ):
        with pytest.raises(ValueError, match=word) as caught:
            _state.resolve_state_dir("state", sources)
        assert "set backup_state_dir" in str(caught.value)


def test_an_execution_environment_is_not_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "_RUNNER", str(tmp_path))
    for name in ("inventory", "hosts"):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match="execution environment"):
            _state.resolve_state_dir("state", [str(tmp_path / name)])
    assert _state.resolve_state_dir("/srv/state", [str(tmp_path / "inventory")]) == "/srv/state"


@pytest.mark.parametrize("value", ["inventory/state", "inventory", "link"])
def test_inside_the_inventory_directory_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "inventory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inventory")
    for path in (value, f"{tmp_path}/{value}"):
        with pytest.raises(ValueError, match="read what hosts deliver as inventory"):
            _state.resolve_state_dir(path, [str(tmp_path / "inventory")])


def test_hosts_with_odd_names_stay_inside() -> None:
    assert _state.host_directory("web1.example.net") == "web1.example.net"
    for name in ("..", ".", "../../etc", "a/b", "-x", ".git", "fe80::1%eth0", "ä", "a b", "x\n"):
        made = _state.host_directory(name)
        assert "/" not in made
        assert made not in (".", "..")
        assert not made.startswith((".", "-")) or name == "-x"
        assert made.isascii()
    assert _state.host_directory("a.b/c") != _state.host_directory("a.b%2Fc")
    for name in ("", "a" * 201, "ä" * 100):
        with pytest.raises(ValueError, match="host name"):
            _state.host_directory(name)


# --- reading


def test_nothing_is_there() -> None:
    empty: dict[str, Any] = {"rest": {}, "ssh": {}, "escrow": {}, "identities": {}, "ca": None, "ssh_host_keys": []}
    empty.update(rendered=None, ssh_rendered=None, decommissioned=None)
    assert _state.read_host("/nonexistent/state", "web1") == empty
    assert _state.read_fleet_id("/nonexistent/state") is None


def test_what_was_written_is_read(state: Path, certificate: str) -> None:
    update(
        state,
        {
            "rest/vault.json": json.dumps(REST),
            "rest/off-site.json": dict(REST, next_hash=HASH),
            AGE_PATH: AGE,
            f"escrow/plain/{'0' * 32}.json": '{"password": "x"}',
            "ca.pem": certificate,
            "identity.json": {"repositories": {"vault": "web1"}},
            "ssh/offsite.pub": f"{KEYS[0]}\n",
            "ssh/second.pub": f"{KEYS[0]}\n{KEYS[1]}\n",
            "ssh_host_keys": f"{KEYS[0]}\n{KEYS[1]}\n",
            "rendered.json": {"digest": "x"},
            "ssh_rendered.json": {"repositories": {}},
            "decommissioned.json": {"time": "2026"},
        },
    )
    (state / "hosts/web1/rest/README").write_text("by hand")
    (state / "hosts/web1/escrow/vault/README").write_text("by hand")
    (state / "hosts/web1/escrow/empty").mkdir()
    assert _state.read_host(str(state), "web1") == {
        "rest": {"vault": REST, "off-site": dict(REST, next_hash=HASH)},
        "escrow": {"vault": [AGE_NAME], "plain": [f"{'0' * 32}.json"]},
        "identities": {"vault": "web1"},
        "ca": certificate,
        "ssh": {
            "offsite": {"key": KEYS[0], "next_key": None},
            "second": {"key": KEYS[0], "next_key": KEYS[1]},
        },
        "ssh_host_keys": KEYS,
        "rendered": {"digest": "x"},
        "ssh_rendered": {"repositories": {}},
        "decommissioned": {"time": "2026"},
    }
    assert (state / "hosts/web1" / AGE_PATH).read_bytes() == b"age-encryption.org/v1\nx\xff"


SERVED = {
    "account": "bk-web1", "kind": "sftp", "path": "/srv/x", "remote": None, "quota": None, "append_only": False,
    "host": "web1", "from": [], "keys": ["SHA256:x"],
}  # fmt: skip
ODD_RENDERED: list[dict[str, Any]] = [
    {"users": None},
    {"users": ["web1--vault"]},
    {"users": {"web1--vault": 5}},
    {"quotas": []},
    {"quotas": {"web1--vault": ["1G"]}},
    {"names": "vault1"},
    {"names": [5]},
]
ODD_SSH_RENDERED: list[dict[str, Any]] = [
    {"repositories": []},
    {"repositories": {"web1--vault": None}},
    *({"repositories": {"web1--vault": {key: SERVED[key] for key in SERVED if key != left}}} for left in SERVED),
    *({"repositories": {"web1--vault": {**SERVED, key: {"odd": 1}}}} for key in SERVED),
    {"repositories": {"web1--vault": {**SERVED, "from": [5]}}},
]


def damage(state: Path, name: str, content: bytes | None) -> None:
    path = state / "hosts/web1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if content is None:
        path.symlink_to("/etc/passwd")
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("rest/vault.json", b"{", "not a JSON object"),
        ("rest/vault.json", b'{"user": "x", "hash": "*"}', "not bcrypt"),
        ("ca.pem", b"-----BEGIN PRIVATE KEY-----\n", "PEM certificates"),
        ("ssh/vault.pub", b"ssh-ed25519 AAAA\n", "no public key of SSH"),
        ("ssh_host_keys", b"ssh-rsa AAAA\n", "no host keys of SSH"),
        ("rendered.json", b"[]", "not a JSON object"),
        ("rendered.json", b"[" * 60000, "not a JSON object"),
        ("decommissioned.json", b" " * 70000, "larger than"),
        ("rendered.json", None, "is a link"),
        (AGE_PATH, b"", "not encrypted by age"),
        (AGE_PATH, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not encrypted by age"),
        (AGE_PATH, None, "is a link"),
        (f"escrow/vault/{'0' * 32}.json", b'{"password": "x"', "not a JSON object"),
        (f"escrow/vault/{'0' * 32}.json", b"[]", "not a JSON object"),
        *(("rendered.json", json.dumps(odd).encode(), "not what a server") for odd in ODD_RENDERED),
        *(("ssh_rendered.json", json.dumps(odd).encode(), "not what a server") for odd in ODD_SSH_RENDERED),
    ],
)
def test_damaged_files_are_named(state: Path, name: str, content: bytes | None, word: str) -> None:
    damage(state, name, content)
    with pytest.raises(ValueError, match=word) as caught:
        _state.read_host(str(state), "web1")
    assert name in str(caught.value)


def test_a_damaged_file_is_no_obstacle_to_the_others(state: Path, certificate: str) -> None:
    update(state, {"rest/vault.json": REST, "ca.pem": certificate, "ssh/offsite.pub": f"{KEYS[0]}\n"})
    good = _state.read_host(str(state), "web1")
    assert _state.examine_host(str(state), "web1") == (good, [])
    damage(state, "rest/other.json", b"{")
    damage(state, "ssh/offsite.pub", b"ssh-ed25519 AAAA\n")
    damage(state, "rendered.json", b"[]")
    found, problems = _state.examine_host(str(state), "web1")
    assert found == {**good, "ssh": {}}
    assert [problem.partition(": ")[0].rpartition("web1/")[2] for problem in problems] == [
        "rest/other.json", "ssh/offsite.pub", "rendered.json",
    ]  # fmt: skip


def test_a_damaged_bundle_is_nobody_s_escrow(state: Path) -> None:
    """A checkout without git-lfs damages all of them: that is one message of each repository."""
    names = [f"{digit * 32}-{'0' * 16}.age" for digit in "1234"]
    update(state, {f"escrow/{name}/{names[0]}": AGE for name in ("vault", "other")})
    for name in names[1:]:
        damage(state, f"escrow/vault/{name}", b"")
    damage(state, f"escrow/other/{names[0]}", b"version https://git-lfs.github.com/spec/v1\n")
    found, problems = _state.examine_host(str(state), "web1")
    assert found["escrow"] == {"vault": [names[0]]}
    assert len(problems) == 2
    assert f"{state}/hosts/web1/escrow/vault/{names[1]}" in problems[1]
    assert "2 more" in problems[1]
    assert "more" not in problems[0]


def test_who_was_decommissioned_stays_so_when_the_file_is_damaged(state: Path) -> None:
    damage(state, "decommissioned.json", b"")
    found, problems = _state.examine_host(str(state), "web1")
    assert found["decommissioned"]
    assert len(problems) == 1


def test_what_is_in_the_way_of_a_whole_host_is_told_once(state: Path) -> None:
    (state / "hosts").mkdir(parents=True)
    (state / "hosts/web1").symlink_to("/etc")
    found, problems = _state.examine_host(str(state), "web1")
    # Not decommissioned either, which would revoke it: without its secrets nobody lets it in anew.
    assert not any(found.values())
    assert len(problems) == 1
    assert "hosts/web1 is a link" in problems[0]


def test_odd_things_in_the_way(state: Path) -> None:
    (state / "hosts/web1/ca.pem").mkdir(parents=True)
    with pytest.raises(ValueError, match="no regular file"):
        _state.read_host(str(state), "web1")
    (state / "hosts/web2").mkdir()
    (state / "hosts/web2/escrow").write_text("a file where a directory belongs")
    assert _state.read_host(str(state), "web2")["escrow"] == {}
    (state / "hosts/web3").symlink_to("web2")
    with pytest.raises(ValueError, match="is a link"):
        _state.read_host(str(state), "web3")


def test_unreadable_files_are_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(state, {"rest/vault.json": REST})

    def refuse(*_arguments: object, **_keywords: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"vault\.json: Permission denied"):
        _state.read_host(str(state), "web1")
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ValueError, match="rest: Permission denied"):
        _state.read_host(str(state), "web1")


@pytest.mark.parametrize("text", ['{"fleet_id": 7}', '{"fleet_id": "../x"}', "{}"])
def test_a_damaged_fleet_id(state: Path, text: str) -> None:
    state.mkdir()
    (state / "fleet.json").write_text(text)
    with pytest.raises(ValueError, match="no valid fleet_id"):
        _state.read_fleet_id(str(state))


# --- writing


def test_written_once_and_then_unchanged(state: Path) -> None:
    wanted = {"rest/vault.json": REST, AGE_PATH: AGE}
    announced = update(state, wanted, make_fleet_id=True, check_mode=True)
    assert not state.exists()
    done = update(state, wanted, make_fleet_id=True)
    assert (announced.written, announced.directories) == (done.written, done.directories)
    assert announced.fleet_id == UNBORN
    assert done.fleet_id == _state.read_fleet_id(str(state))
    assert modes(state) == {0o700, 0o600}
    for check_mode in (True, False):
        again = update(state, wanted, make_fleet_id=True, check_mode=check_mode)
        assert again == _state.Change([], [], [], done.fleet_id)


def test_a_server_may_have_many_clients(state: Path) -> None:
    served = {
        f"web{number}.prod.example.net--offsite": {
            **SERVED,
            "account": f"bk-web{number}.prod.example.net",
            "host": f"web{number}.prod.example.net",
            "keys": [f"SHA256:{'x' * 43}"],
        }
        for number in range(1000)
    }
    write = {"ssh_rendered.json": {"repositories": served}}
    assert _state.update(str(state), "vault1", write=write).written == ["hosts/vault1/ssh_rendered.json"]
    assert _state.read_host(str(state), "vault1")["ssh_rendered"] == write["ssh_rendered.json"]
    with pytest.raises(ValueError, match="are more than"):
        _state.update(str(state), "vault1", write={"handed_over.json": {"repositories": served}})


def test_check_mode_tells_what_changes_and_writes_nothing(state: Path) -> None:
    update(state, {"rest/vault.json": REST})
    other = dict(REST, next_hash=HASH)
    assert update(state, {"rest/vault.json": other}, check_mode=True).written == ["hosts/web1/rest/vault.json"]
    assert _state.read_host(str(state), "web1")["rest"]["vault"] == REST
    assert update(state, {"rest/vault.json": other}).written == ["hosts/web1/rest/vault.json"]
    assert _state.read_host(str(state), "web1")["rest"]["vault"] == other


def test_what_is_not_born_yet_counts_as_a_change_in_check_mode_only(state: Path) -> None:
    wanted = {
        "rest/vault.json": json.dumps(dict(REST, hash=UNBORN)),
        f"escrow/vault/{UNBORN}": {"b64": UNBORN},
        "ca.pem": UNBORN,
    }
    announced = update(state, wanted, check_mode=True)
    assert len(announced.written) == 3
    assert not state.exists()
    for path, value in wanted.items():
        with pytest.raises(ValueError, match="write: "):
            update(state, {path: value})
    with pytest.raises(ValueError, match="is none of"):
        update(state, {f"../{UNBORN}": "x"}, check_mode=True)
    assert not state.exists()


def test_bundles_are_never_overwritten(state: Path) -> None:
    update(state, {AGE_PATH: AGE})
    other = {"b64": base64.b64encode(b"age-encryption.org/v1\nother").decode()}
    assert update(state, {AGE_PATH: other}).written == []
    assert (state / "hosts/web1" / AGE_PATH).read_bytes().endswith(b"x\xff")


def test_a_host_called_escrow_is_a_host(state: Path) -> None:
    update(state, {"rest/vault.json": REST, AGE_PATH: AGE}, host="escrow")
    rotated = {**REST, "hash": "$2b$12$" + "b" * 53}
    assert update(state, {"rest/vault.json": rotated}, host="escrow").written == ["hosts/escrow/rest/vault.json"]
    assert _state.read_host(str(state), "escrow")["rest"]["vault"] == rotated
    other = {"b64": base64.b64encode(b"age-encryption.org/v1\nother").decode()}
    assert update(state, {AGE_PATH: other}, host="escrow").written == []


def test_removal(state: Path, certificate: str) -> None:
    assert update(state, remove=["ca.pem"]).removed == []
    assert not state.exists()
    update(state, {"rest/vault.json": REST, "ca.pem": certificate})
    gone = ["hosts/web1/ca.pem", "hosts/web1/rest/vault.json"]
    assert update(state, remove=["ca.pem", "rest/vault.json"], check_mode=True).removed == gone
    assert (state / gone[0]).exists()
    assert update(state, remove=["ca.pem", "rest/vault.json"]).removed == gone
    assert update(state, remove=["ca.pem", "rest/vault.json"]).removed == []
    assert not (state / gone[0]).exists()
    for path in (AGE_PATH, "escrow", "../../fleet.json", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="nothing that may be removed"):
            update(state, remove=[path])


def test_the_fleet_id_is_made_once_or_given(state: Path) -> None:
    assert update(state, make_fleet_id=False).fleet_id is None
    assert not state.exists()
    assert update(state, fleet_id="old-fleet-id", check_mode=True).fleet_id == "old-fleet-id"
    assert update(state, fleet_id="old-fleet-id").fleet_id == "old-fleet-id"
    assert update(state, make_fleet_id=True, fleet_id="old-fleet-id").written == []
    assert update(state, make_fleet_id=True, host=None).fleet_id == "old-fleet-id"
    with pytest.raises(ValueError, match="belongs to the fleet old-fleet-id, not another-id") as refused:
        update(state, fleet_id="another-id")
    # The cure that it names works.
    assert f"or, where that is lost, remove {state}/fleet.json" in str(refused.value)
    (state / "fleet.json").unlink()
    assert update(state, fleet_id="another-id").fleet_id == "another-id"
    with pytest.raises(ValueError, match="8 to 64"):
        update(state, fleet_id="../x")


def test_modes_of_a_checkout_are_put_right(state: Path) -> None:
    update(state, {"rest/vault.json": REST})
    for path in [state, *state.rglob("*")]:
        path.chmod(0o775 if path.is_dir() else 0o664)
    announced = update(state, {"rest/vault.json": REST}, check_mode=True)
    assert announced.directories == [".", "hosts", "hosts/web1", "hosts/web1/rest"]
    assert announced.written == ["hosts/web1/rest/vault.json"]
    assert update(state, {"rest/vault.json": REST}) == announced
    assert modes(state) == {0o700, 0o600}


def test_missing_parents_are_made(state: Path) -> None:
    update(state / "a" / "b", {"rest/vault.json": REST})
    assert modes(state) == {0o700, 0o600}


@pytest.mark.parametrize("name", ["hosts", "hosts/web1", "hosts/web1/rest", "hosts/web1/rest/vault.json"])
def test_links_are_refused(state: Path, name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (state / name).parent.mkdir(parents=True)
    (state / name).symlink_to(elsewhere)
    for check_mode in (True, False):
        with pytest.raises(ValueError, match=r"links? "):
            update(state, {"rest/vault.json": REST}, check_mode=check_mode)
    assert list(elsewhere.iterdir()) == []


def test_a_state_directory_behind_a_link_of_the_user_is_fine(state: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(state.parent)
    assert update(tmp_path / "link" / state.name, {"rest/vault.json": REST}).written
    assert _state.read_host(str(state), "web1")["rest"]


def test_a_file_in_the_place_of_a_directory(state: Path) -> None:
    state.write_text("x")
    with pytest.raises(ValueError, match="not a directory"):
        update(state, {"rest/vault.json": REST})


def test_another_run_is_waited_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(state, make_fleet_id=True)
    monkeypatch.setattr(_state, "LOCK_SECONDS", 0.1)
    with _state.Tree() as tree:
        tree.trust(_state._ancestors(str(state)))
        tree.lock(str(state), timeout=1)
        with pytest.raises(ValueError, match="another run holds"):
            update(state, {"rest/vault.json": REST})
        # Check mode waits for nobody.
        assert update(state, {"rest/vault.json": REST}, check_mode=True).written
    assert update(state, {"rest/vault.json": REST}).written


# --- hostile contents


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("../web2/rest/vault.json", REST, "is none of"),
        ("rest/../../x.json", REST, "is none of"),
        ("rest/vault.json\n", REST, "is none of"),
        ("rest/.hidden.json", REST, "is none of"),
        ("fleet.json", {"fleet_id": "x"}, "is none of"),
        ("ssh/../x.pub", f"{KEYS[0]}\n", "is none of"),
        ("ssh/vault.pub", KEYS[0], "not lines of ASCII"),
        ("ssh/vault.pub", f"{KEYS[0]}\n\n", "no public key of SSH"),
        ("ssh/vault.pub", f"{KEYS[0]}\n" * 2, "not one or two different"),
        ("ssh/vault.pub", f"{KEYS[0]} comment\n", "no public key of SSH"),
        ("ssh/vault.pub", f'command="id" {KEYS[0]}\n', "no public key of SSH"),
        ("ssh/vault.pub", f"{KEYS[0]}\n" * 1000, "more than"),
        ("ssh_host_keys", f"* {KEYS[0]}\n", "no host keys of SSH"),
        ("ssh_host_keys", f"{KEYS[1]}\n{KEYS[0]}\n", "not sorted"),
        ("ssh_host_keys", f"{KEYS[0]}ä\n", "not lines of ASCII"),
        ("escrow/vault/../../x.age", AGE, "is none of"),
        ("escrow/vault/x.age", AGE, "is none of"),
        ("rest/vault.json", dict(REST, hash="$2b$31$" + "a" * 53), "not bcrypt"),
        ("rest/vault.json", dict(REST, hash=HASH + "\nroot:x"), "not bcrypt"),
        ("rest/vault.json", dict(REST, hash=None), "not bcrypt"),
        ("rest/vault.json", dict(REST, next_hash="x"), "not bcrypt"),
        ("rest/vault.json", dict(REST, next_hash=7), "not bcrypt"),
        ("rest/vault.json", dict(REST, user="a:b"), "valid user"),
        ("rest/vault.json", dict(REST, user=7), "valid user"),
        ("rest/vault.json", dict(REST, more="x"), "valid user"),
        ("rest/vault.json", "x" * 70000, "are more than"),
        ("identity.json", {"vault": "web1"}, "not {repositories}"),
        ("identity.json", {"repositories": {"vault": "../web1"}}, "not {repositories}"),
        (AGE_PATH, {"b64": base64.b64encode(b"[defaults]").decode()}, "not encrypted by age"),
        (AGE_PATH, {"b64": "no base64!"}, "not base64"),
        (AGE_PATH, ["x"], "give a string"),
        (f"escrow/vault/{'0' * 32}.json", "no json", "not a JSON object"),
        ("ca.pem", "", "PEM certificates"),
        ("ca.pem", "{{ lookup('pipe', 'id') }}", "PEM certificates"),
        ("ca.pem", PEM, "not PEM certificates"),
        ("ca.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PEM certificates"),
        ("rendered.json", "[1]", "not a JSON object"),
    ],
)
def test_hostile_contents_are_refused_before_anything_is_written(state: Path, path: str, value: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        update(state, {"rest/good.json": REST, path: value})
    assert not state.exists()


def test_certificates_are_counted_and_must_be_of_a_ca(state: Path, certificate: str, tmp_path: Path) -> None:
    authority = _tls.make_authority(["vault1"], 1_800_000_000, str(tmp_path))
    other = _tls.certificate_part(authority)
    assert update(state, {"ca.pem": certificate + other}).written
    with pytest.raises(ValueError, match="1 to 4"):
        update(state, {"ca.pem": certificate * 5})
    with pytest.raises(ValueError, match="twice"):
        update(state, {"ca.pem": certificate * 2})
    leaf = _tls.certificate_part(_tls.issue(authority, ["vault1"], 1_800_000_000, 90, str(tmp_path)))
    with pytest.raises(ValueError, match="none of a CA"):
        update(state, {"ca.pem": leaf})


def test_bad_calls(state: Path) -> None:
    with pytest.raises(ValueError, match="not absolute"):
        _state.update("state", "web1", write={})
    with pytest.raises(ValueError, match="host: needed"):
        update(state, {"ca.pem": "x"}, host=None)
    with pytest.raises(ValueError, match="more than 1000"):
        update(state, {f"rest/r{number}.json": REST for number in range(1001)})
