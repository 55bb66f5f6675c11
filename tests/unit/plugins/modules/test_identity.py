# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module identity on a directory of the test's; libcrypt is real, age is a stand-in."""

from __future__ import annotations

import base64
import errno
import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import (
    _bcrypt,
    _escrow,
    _hold,
    _record,
    _secrets,
    _source,
    _ssh,
)
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.module_utils._restic import EngineError
from ansible_collections.holdfast.backup.plugins.modules import identity

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
REST = {
    "name": "vault",
    "access": "rest",
    "location": "rest:https://vault1:8000/web1--vault/",
    "rest_user": "web1--vault",
}
S3 = {"name": "s3", "access": "url", "location": "s3:https://s3.example/bucket", "environment": {"AWS_KEY": "1"}}


class Client:
    """A client's secrets directory, and the way to run the module on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys
        self.bundles: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def run(self, *repositories: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        args = {
            "directory": str(self.directory),
            "fleet_id": "fleet-0001",
            "host": "web1",
            "bcrypt_cost": 4,
            "repositories": list(repositories),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **options,
        }
        with patch_module_args(args), pytest.raises(SystemExit):
            identity.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def snapshot(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.directory.glob("*"))}

    def encrypt(self, content: dict[str, Any], recipients: list[str], age: str) -> bytes:
        """Stands for age."""
        assert recipients == [RECIPIENT]
        if age == "missing":
            raise _escrow.AgeMissing("`missing` is not installed")
        if age == "bad":
            raise _escrow.EscrowError("age refused `backup_escrow.recipients`: malformed")
        self.bundles.append(content)
        return _escrow.AGE_MAGIC + b"ciphertext %d" % len(self.bundles)


@pytest.fixture
def client(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Client:
    tmp_path.chmod(0o755)
    made = Client(tmp_path / "holdfast" / "secrets", capsys)
    monkeypatch.setattr(_secrets, "HELD", str(tmp_path / "held"))
    monkeypatch.setattr(_escrow, "encrypt", made.encrypt)
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: made.warnings.append(text))
    return made


AGE = {"mode": "age", "recipients": [RECIPIENT]}


def test_bare_host_then_converged(client: Client) -> None:
    announced = client.run(REST, S3, check=True)
    assert announced["changed"] is True
    assert announced["repositories"]["vault"]["rest_hash"] == _secrets.UNBORN
    assert announced["repositories"]["vault"]["fingerprint"] == _secrets.UNBORN
    assert announced["repositories"]["vault"]["made"] is True
    assert not client.directory.exists()

    first = client.run(REST, S3)
    assert first["changed"] is True
    vault = first["repositories"]["vault"]
    password = json.loads(client.text("vault.identity"))["rest"]["current"]["password"]
    assert _bcrypt.verify(password, vault["rest_hash"])
    assert (vault["rest_user"], vault["rest_next_hash"], vault["made"]) == ("web1--vault", None, True)
    assert (vault["bundle"], vault["bundle_name"], vault["bundle_valid"]) == (None, None, None)
    assert client.text("vault.repository") == f"rest:https://web1--vault:{password}@vault1:8000/web1--vault/\n"
    assert client.text("s3.environment") == "AWS_KEY=1\n"
    assert client.text("vault.password").endswith("\n")
    for path in client.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400, path
    assert stat.S_IMODE(client.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(client.directory.parent.stat().st_mode) == 0o755
    assert announced["diff"]["after"] == first["diff"]["after"]

    before = client.snapshot()
    for check in (True, False):
        again = client.run(REST, S3, check=check)
        assert again["changed"] is False
        assert again["diff"]["after"] == ""
        assert again["repositories"]["vault"]["rest_hash"] == vault["rest_hash"]
        assert again["repositories"]["vault"]["made"] is False
    assert client.snapshot() == before


def test_a_record_that_applies_is_told(client: Client, tmp_path: Path) -> None:
    records = tmp_path / "records"

    def recorded(**changed: Any) -> bool:
        return bool(client.run(dict(S3, **changed), records=str(records))["repositories"]["s3"]["recorded"])

    assert not recorded()
    source = _source.load(
        {f"{name}_file": str(client.directory / f"s3.{name}") for name in ("repository", "password", "environment")}
    )
    with Tree() as tree:
        key = _record.make_key(tree, str(records))
        _record.write(tree, str(records / "s3.env"), _record.Record("0" * 8, "1" * 8, _record.fingerprint(key, source)))
    assert recorded()
    # The module `repository` has to look at the key that borg exported, too.
    assert not recorded(engine="borg")
    assert not recorded(environment={"AWS_KEY": "2"})
    assert not recorded(location="s3:https://s3.example/other")
    assert recorded()
    (records / "fingerprint.key").chmod(0o644)
    assert not recorded()
    (records / "fingerprint.key").chmod(0o400)
    (records / "s3.env").write_text("something else")
    assert not recorded()


def test_a_record_of_another_way_does_not_apply(client: Client, tmp_path: Path) -> None:
    records = tmp_path / "records"

    def told(way: str | None) -> dict[str, Any]:
        found: dict[str, Any] = client.run(dict(OFFSITE, ssh_way=way), records=str(records))["repositories"]["offsite"]
        return found

    first = told("0" * 32)
    assert first["way"] == _record.way_of("0" * 32, first["ssh_public_key"])
    source = _source.load(
        {f"{name}_file": str(client.directory / f"offsite.{name}") for name in ("repository", "password")}
    )
    with Tree() as tree:
        key = _record.make_key(tree, str(records))
        record = _record.Record("0" * 8, "1" * 8, _record.fingerprint(key, source), first["way"])
        _record.write(tree, str(records / "offsite.env"), record)
    assert told("0" * 32)["recorded"]
    assert not told("1" * 32)["recorded"]
    assert (told(None)["way"], told(None)["recorded"]) == (None, True)
    # Another key, of a client that lost its own, say.
    (client.directory / "offsite.ssh_key").unlink()
    assert not told("0" * 32)["recorded"]


def test_no_secret_is_in_the_result(client: Client) -> None:
    args = dict(S3, password="canary-password", environment={"AWS_KEY": "canary-environment", "REGION": "e"})
    result = client.run(dict(REST, rest_password="canary-rest"), args, escrow=AGE)
    assert "canary" not in json.dumps(result)
    assert result["invocation"]["module_args"]["repositories"][1]["environment"] == identity._CENSORED
    # A short value must not mask parts of hashes and bundles.
    assert "*" not in json.dumps(result)
    for name in ("vault", "s3"):
        assert base64.b64decode(result["repositories"][name]["bundle"]).startswith(_escrow.AGE_MAGIC)
        assert client.text(f"{name}.password").strip() not in json.dumps(result)


def test_bundles_are_made_until_the_controller_has_them(client: Client) -> None:
    announced = client.run(REST, escrow=AGE, check=True)["repositories"]["vault"]
    assert (announced["bundle"], announced["bundle_name"]) == (_secrets.UNBORN, _secrets.UNBORN)
    first = client.run(REST, escrow=AGE)["repositories"]["vault"]
    assert first["bundle_valid"] is False
    assert first["bundle_name"] == f"{first['fingerprint']}-{_escrow.recipients_digest([RECIPIENT])}.age"
    again = client.run(REST, escrow=AGE)
    assert again["changed"] is False
    assert again["repositories"]["vault"]["bundle"] is not None
    in_check = client.run(REST, escrow=AGE, check=True)["repositories"]["vault"]
    assert in_check["bundle_name"] == first["bundle_name"]
    assert in_check["bundle"] not in (None, _secrets.UNBORN)
    made = len(client.bundles)
    have = {"vault": [first["bundle_name"]]}
    done = client.run(REST, escrow=dict(AGE, have=have))["repositories"]["vault"]
    assert (done["bundle"], done["bundle_valid"]) == (None, True)
    assert len(client.bundles) == made
    # After init the bundle has id and key: another fingerprint, another bundle.
    later = client.run(dict(REST, repository_id="id", key_id="key"), escrow=dict(AGE, have=have))
    assert later["changed"] is True
    assert later["repositories"]["vault"]["bundle_valid"] is False
    assert client.bundles[-1]["repository_id"] == "id"


def test_a_bundle_is_later_than_the_one_before(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 86400)
    client.run(REST, escrow=AGE)
    assert client.bundles[-1]["made"] == int(real + 86400)
    monkeypatch.setattr(time, "time", lambda: real)
    client.run(dict(REST, repository_id="id"), escrow=AGE)
    assert client.bundles[-1]["made"] == int(real + 86400) + 1
    # The same one, since the controller has not got it yet.
    client.run(dict(REST, repository_id="id"), escrow=AGE)
    assert client.bundles[-1] == client.bundles[-2]
    client.run(dict(S3, password="x", bundle_made=2**40), escrow=AGE)
    assert client.bundles[-1]["made"] == 2**40 + 1


def test_controller_mode_returns_plaintext(client: Client) -> None:
    done = client.run(REST, escrow={"mode": "controller"})["repositories"]["vault"]
    assert done["bundle_name"] == f"{done['fingerprint']}.json"
    content = json.loads(base64.b64decode(done["bundle"]))
    assert content["password"] == client.text("vault.password").strip()
    assert content["host"] == "web1"


def test_age_missing_is_an_error_only_in_the_real_run(client: Client) -> None:
    escrow = dict(AGE, age_binary="missing")
    assert client.run(REST, escrow=escrow, check=True)["changed"] is True
    failed = client.run(REST, escrow=escrow)
    assert "not installed" in failed["msg"]
    assert not list(client.directory.glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"escrow": {"mode": "age", "recipients": ["nonsense"]}}, "backup_escrow.recipients"),
        ({"escrow": {"mode": "age"}}, "recipients` is empty"),
        ({"escrow": dict(AGE, age_binary="bad")}, "malformed"),
        ({"bcrypt_cost": 31}, "`bcrypt_cost` 31"),
    ],
)
def test_bad_options_change_nothing(client: Client, options: dict[str, Any], message: str) -> None:
    failed = client.run(REST, **options)
    assert failed["failed"] is True
    assert message in failed["msg"]
    assert not list(client.directory.glob("*"))


def test_all_repositories_are_checked_before_any_is_changed(client: Client) -> None:
    for check in (True, False):
        failed = client.run(S3, dict(REST, known=True), dict(REST, name="other", known=True), check=check)
        assert failed["failed"] is True
        assert "restore_identity" in failed["msg"]
        assert "`vault`" in failed["msg"]
        assert "`other`" in failed["msg"]
        assert not list(client.directory.glob("*"))


def test_a_name_twice(client: Client) -> None:
    assert "'vault' is there more than once" in client.run(REST, REST)["msg"]


def test_rotation_from_end_to_end(client: Client) -> None:
    first = client.run(REST)["repositories"]["vault"]
    announced = client.run(dict(REST, rest_rotate=True), check=True)
    assert announced["changed"] is True
    assert announced["repositories"]["vault"]["rest_next_hash"] == _secrets.UNBORN
    promote = dict(REST, rest_promote=True, rest_server_hash=_secrets.UNBORN)
    assert client.run(promote, check=True)["changed"] is True
    assert client.run(promote)["changed"] is False
    second = client.run(dict(REST, rest_rotate=True))
    assert second["changed"] is True
    following = second["repositories"]["vault"]["rest_next_hash"]
    assert second["repositories"]["vault"]["rest_hash"] == first["rest_hash"]
    assert client.run(dict(REST, rest_rotate=True))["changed"] is False
    old_location = client.text("vault.repository")
    third = client.run(dict(REST, rest_promote=True, rest_server_hash=following))
    assert third["changed"] is True
    assert third["repositories"]["vault"]["rest_hash"] == following
    assert third["repositories"]["vault"]["rest_next_hash"] is None
    assert client.text("vault.repository") != old_location
    assert client.run(dict(REST, rest_promote=True, rest_server_hash=following))["changed"] is False
    assert client.warnings == []
    client.run(dict(REST, rest_promote=True, rest_server_hash=first["rest_hash"]))
    assert "not of this host's passwords" in client.warnings[0]


def test_runs_wait_from_before_servers_are_told_until_they_are_let_go(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Path(_secrets.HELD) / "vault"
    seen: list[tuple[str, bool]] = []
    units: list[str] = []

    def running(name: str) -> list[str]:
        # A unit that does not run by now sees that it has to wait.
        seen.append((name, held.exists()))
        return units

    def waiting(done: dict[str, Any]) -> tuple[bool | None, bool]:
        said = done["repositories"]["vault"]
        assert held.exists() is said["held"]
        return said["busy"], said["held"]

    monkeypatch.setattr(_hold, "running", running)
    hold = dict(REST, hold=True)
    assert waiting(client.run(hold)) == (None, False)
    assert seen == []
    announced = client.run(dict(hold, rest_rotate=True), check=True)["repositories"]["vault"]
    assert (announced["busy"], announced["held"], held.exists()) == (False, True, False)
    seen.clear()
    made = client.run(dict(hold, rest_rotate=True))
    assert (waiting(made), seen) == ((False, True), [("vault", True)])
    units.append("holdfast-system--vault.service")
    assert waiting(client.run(hold)) == (True, True)
    promote = dict(rest_promote=True, rest_server_hash=made["repositories"]["vault"]["rest_next_hash"])
    # The servers may have something to take away.
    assert waiting(client.run({**hold, **promote})) == (None, True)
    done = client.run(REST)
    assert (waiting(done), done["changed"]) == ((None, False), False)


def test_where_one_key_is_rotated_all_runs_of_the_client_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server ends all connections of the client."""
    monkeypatch.setattr(_hold, "running", lambda name: ["holdfast-system--vault.service"] if name == "vault" else [])
    both = [dict(REST, hold=True), dict(OFFSITE, hold=True)]
    client.run(*both)
    said = client.run(both[0], dict(both[1], ssh_rotate=True))["repositories"]
    assert {name: (each["busy"], each["held"]) for name, each in said.items()} == {
        "vault": (True, True),
        "offsite": (False, True),
    }
    # A server of somebody else may take days, and knows of no run here.
    said = client.run(both[0], OFFSITE)["repositories"]
    assert [said[name]["busy"] for name in ("vault", "offsite")] == [None, None]


def test_where_systemd_does_not_say_what_runs_the_server_does_not_switch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_name: str) -> list[str]:
        raise EngineError("no bus")

    monkeypatch.setattr(_hold, "running", unknown)
    client.run(REST)
    assert client.run(dict(REST, rest_rotate=True, hold=True))["repositories"]["vault"]["busy"] is True


def test_mode_owner_and_content_are_put_right(client: Client) -> None:
    client.run(REST)
    path = client.directory / "vault.password"
    path.chmod(0o644)
    client.directory.chmod(0o755)
    for check in (True, False):
        fixed = client.run(REST, check=check)
        assert fixed["changed"] is True
        assert fixed["diff"]["after"].count("\n") == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(client.directory.stat().st_mode) == 0o700
    (client.directory / "vault.repository").unlink()
    assert client.run(REST)["changed"] is True
    assert client.run(REST)["changed"] is False


def test_a_lost_or_emptied_password_is_noticed(client: Client) -> None:
    client.run(REST)
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("")):
        path = client.directory / "vault.password"
        path.touch()
        damage(path)
        assert "vault.password is gone" in client.run(REST)["msg"]


def test_links_and_odd_files_are_refused(client: Client, tmp_path: Path) -> None:
    client.run(REST)
    path = client.directory / "vault.password"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "no regular file" in client.run(REST)["msg"]
    path.unlink()
    path.write_bytes(b"\xff")
    assert "not UTF-8" in client.run(REST)["msg"]
    assert not (tmp_path / "elsewhere").exists()


def test_undeclared_repositories_are_kept_or_pruned_with_proof(client: Client) -> None:
    client.run(REST, S3)
    (client.directory / "notes.txt").write_text("not ours")
    kept = client.run(REST)
    assert (kept["stale"], kept["pruned"], kept["changed"]) == (["s3"], [], False)
    unproved = client.run(REST, prune=True)
    assert (unproved["stale"], unproved["pruned"]) == (["s3"], [])
    fingerprint = json.loads(client.text("s3.identity"))["escrow"]["fingerprint"]
    escrow = {**AGE, "have": {"s3": [f"{fingerprint}-{_escrow.recipients_digest([RECIPIENT])}.age"]}}
    # Whether its recipients still have their key nobody knows, and the recipients of today cannot open it.
    for mode, bundle in (("age", f"{fingerprint}-{'0' * 16}.age"), ("none", f"{fingerprint}-{'0' * 16}.age")):
        client.warnings.clear()
        older = client.run(REST, prune=True, escrow={**AGE, "mode": mode, "have": {"s3": [bundle]}})
        assert (older["stale"], older["pruned"]) == (["s3"], [])
        (warning,) = client.warnings
        assert "s3: its secrets are kept" in warning
        assert ("today's recipients" in warning) == (mode == "age")
    text = client.text("s3.identity")
    (client.directory / "s3.identity").chmod(0o600)
    for damage, stale in (("{", ["s3"]), (None, ["s3"])):
        (client.directory / "s3.identity").unlink(missing_ok=True)
        if damage:
            (client.directory / "s3.identity").write_text(damage)
        assert client.run(REST, prune=True, escrow=escrow)["stale"] == stale
    (client.directory / "s3.identity").write_text(text)
    announced = client.run(REST, prune=True, escrow=escrow, check=True)
    assert (announced["pruned"], announced["changed"]) == (["s3"], True)
    assert (client.directory / "s3.password").exists()
    (client.directory / ".s3.repository.x1y2z3_4").write_text("a password")
    done = client.run(REST, prune=True, escrow=escrow)
    assert (done["stale"], done["pruned"], done["changed"]) == ([], ["s3"], True)
    assert sorted(path.name for path in client.directory.iterdir()) == ["notes.txt"] + [
        f"vault.{suffix}" for suffix in ("environment", "identity", "password", "repository")
    ]


def test_a_promotion_that_is_cut_off_is_one_that_the_next_run_of_a_unit_ends(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit looks whether the server takes another password than the identity's, and writes the location first, too."""
    client.run(REST)
    following = client.run(dict(REST, rest_rotate=True))["repositories"]["vault"]["rest_next_hash"]
    before = {name: client.text(f"vault.{name}") for name in ("identity", "repository")}
    write = Tree.write

    def once(tree: Tree, path: str, *args: Any, **options: Any) -> None:
        write(tree, path, *args, **options)
        if "/vault." in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "write", once)
        assert client.run(dict(REST, rest_promote=True, rest_server_hash=following))["failed"]
    assert client.text("vault.identity") == before["identity"]
    assert client.text("vault.repository") != before["repository"]
    done = client.run(dict(REST, rest_promote=True, rest_server_hash=following))
    assert done["repositories"]["vault"]["rest_next_hash"] is None


def test_a_hash_that_does_not_verify_is_never_used(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bcrypt, "verify", lambda _password, _hash: False)
    assert "does not verify" in client.run(REST)["msg"]
    assert not list(client.directory.glob("*"))


OFFSITE = {"name": "offsite", "access": "rclone", "location": "rclone:holdfast:web1--offsite"}


def test_a_key_of_ssh_is_made_kept_rotated_and_pruned(client: Client) -> None:
    announced = client.run(OFFSITE, REST, check=True)
    assert announced["repositories"]["offsite"]["ssh_public_key"] == _secrets.UNBORN
    assert announced["repositories"]["vault"]["ssh_public_key"] is None
    first = client.run(OFFSITE, REST, escrow=AGE)
    assert announced["diff"]["after"] == first["diff"]["after"]
    public = first["repositories"]["offsite"]["ssh_public_key"]
    private = client.text("offsite.ssh_key")
    assert public == _ssh.public_of(private)
    assert stat.S_IMODE((client.directory / "offsite.ssh_key").stat().st_mode) == 0o400
    assert [bundle.get("ssh_key") for bundle in client.bundles] == [private, None]
    assert "PRIVATE" not in json.dumps(first)
    again = client.run(OFFSITE, REST)
    assert (again["changed"], again["repositories"]["offsite"]["ssh_public_key"]) == (False, public)

    rotating = {**OFFSITE, "ssh_rotate": True}
    assert client.run(rotating, check=True)["repositories"]["offsite"]["ssh_next_public_key"] == _secrets.UNBORN
    after = client.run(rotating)["repositories"]["offsite"]
    following = after["ssh_next_public_key"]
    assert (after["ssh_public_key"], following) == (public, _ssh.public_of(client.text("offsite.ssh_next")))
    # Check mode announces both steps of a rotation, though the next key is not there yet.
    (client.directory / "offsite.ssh_next").rename(client.directory.parent / "aside")
    simulated = client.run({**rotating, "ssh_promote": True}, check=True)
    assert simulated["repositories"]["offsite"]["ssh_public_key"] == _secrets.UNBORN
    assert simulated["changed"] is True
    (client.directory.parent / "aside").rename(client.directory / "offsite.ssh_next")
    promoting = {**OFFSITE, "ssh_promote": True}
    checked = client.run(promoting, check=True)
    done = client.run(promoting)
    assert checked["diff"] == done["diff"]
    assert (
        done["repositories"]["offsite"]["ssh_public_key"],
        done["repositories"]["offsite"]["ssh_next_public_key"],
    ) == (
        following,
        None,
    )
    assert not (client.directory / "offsite.ssh_next").exists()
    assert client.run(promoting)["changed"] is False

    name = client.run(OFFSITE, escrow=AGE)["repositories"]["offsite"]["bundle_name"]
    gone = client.run(prune=True, escrow={**AGE, "have": {"offsite": [name]}})
    assert gone["pruned"] == ["offsite"]
    assert not list(client.directory.glob("offsite.*"))


def test_a_key_of_ssh_from_the_escrow_is_not_shown(client: Client, tmp_path: Path) -> None:
    private = _ssh.make_key(str(tmp_path), "x")
    result = client.run({**OFFSITE, "ssh_key": private, "ssh_known": True, "password": "geheimgeheim"})
    assert client.text("offsite.ssh_key") == private
    assert private.splitlines()[2] not in json.dumps(result)


def test_a_missing_ssh_keygen_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_directory: str, _comment: str) -> str:
        raise _ssh.SshError("`ssh-keygen` is not installed")

    monkeypatch.setattr(_ssh, "make_key", missing)
    assert "ssh-keygen" in client.run(OFFSITE)["msg"]


def test_a_next_password_is_born_here_and_not_shown(client: Client) -> None:
    first = client.run(REST, escrow=AGE)
    before = client.snapshot()
    rotating = {**REST, "password_rotate": True}
    announced = client.run(rotating, check=True)
    assert announced["repositories"]["vault"]["password_next"] is True
    assert client.snapshot() == before
    done = client.run(rotating, escrow=AGE)
    assert announced["diff"] == done["diff"]
    following = client.text("vault.password_next").strip()
    assert stat.S_IMODE((client.directory / "vault.password_next").stat().st_mode) == 0o400
    assert client.bundles[-1]["next_password"] == following
    assert following not in json.dumps(done)
    said = done["repositories"]["vault"]
    assert (said["password_next"], said["password_old"], said["made"]) == (True, False, False)
    assert said["bundle_name"] != first["repositories"]["vault"]["bundle_name"]
    assert client.run(rotating, escrow=AGE)["changed"] is False

    (client.directory / "vault.password").rename(client.directory / "vault.password_old")
    (client.directory / "vault.password_next").rename(client.directory / "vault.password")
    said = client.run(rotating, escrow=AGE)["repositories"]["vault"]
    assert (said["password_next"], said["password_old"]) == (False, True)
    assert client.bundles[-1]["password"] == following
    name = said["bundle_name"]
    assert client.run(prune=True, escrow={**AGE, "have": {"vault": [name]}})["pruned"] == ["vault"]
    assert not list(client.directory.glob("vault.*"))


@pytest.mark.parametrize("engine", ["restic", "borg"])
@pytest.mark.parametrize("pending", [False, True])
def test_check_mode_goes_by_the_next_password_that_is_in_use_by_then(
    client: Client, engine: str, pending: bool
) -> None:
    bare = {"name": "local", "engine": engine, "access": "local", "location": "/srv/local"}
    client.run(bare, escrow=AGE)
    local = {**bare, "repository_id": "1", "key_id": "2"}
    client.run(local, escrow=AGE)
    rotating = {**local, "password_rotate": True}
    if pending:
        client.run(rotating, escrow=AGE)
    before = client.snapshot()
    used = {**local, "password_used": True, "key_id": _secrets.UNBORN}
    announced = client.run(used, escrow=AGE, check=True)
    assert client.snapshot() == before
    if not pending:
        client.run(rotating, escrow=AGE)
    # What the module repository_password does, before the real run asks.
    if engine == "restic":
        (client.directory / "local.password").rename(client.directory / "local.password_old")
    (client.directory / "local.password_next").rename(client.directory / "local.password")
    done = client.run({**used, "key_id": "3"}, escrow=AGE)
    assert announced["changed"] is done["changed"] is True
    assert announced["diff"] == done["diff"]
    states = [each["repositories"]["local"] for each in (announced, done)]
    for name in ("password_next", "password_old", "made", "bundle_valid"):
        assert states[0][name] == states[1][name], name
    assert states[0]["bundle_name"] == states[0]["bundle"] == _secrets.UNBORN
