# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening escrow bundles, with age itself where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _escrow_read

NOW = 1_800_000_000
BUNDLE: dict[str, t.Any] = {
    "password": "geheim",
    "rest_password": "rest",
    "environment": {},
    "repository_id": None,
    "salt": "x",
}


class State:
    """A host's part of the state directory, and a fake or real age."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.told: list[str] = []

    def bundle(self, content: t.Any, suffix: str = ".json", repository: str = "vault", age: int = 0) -> Path:
        self.number += 1
        directory = self.path / "escrow" / repository
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{self.number:032x}" + (suffix if suffix == ".json" else f"-{'0' * 16}{suffix}")
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (directory / name).write_bytes(data)
        os.utime(directory / name, (1e9 - age, 1e9 - age))
        return directory / name

    def read(self, key: str | None = None, *repositories: str) -> dict[str, t.Any]:
        found, self.told = _escrow_read.secrets_of(str(self.path), repositories or ["vault"], key)
        return found

    def take(self, *bundles: Path, now: int = NOW) -> tuple[dict[str, t.Any], str]:
        """The password of each repository, and what is told with it."""
        names = [path.name for path in bundles]
        repositories = sorted(path.name for path in (self.path / "escrow").iterdir())
        found, told = _escrow_read.secrets_of(str(self.path), repositories, None, bundles=names, now=now)
        return {name: secret["password"] for name, secret in found.items()}, "\n".join(told)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


@pytest.fixture
def fake_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An age that says what its file says."""
    path = tmp_path / "bin" / "age"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    path.write_text('#!/bin/sh\nfor last; do :; done\ncat "$last"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text("AGE-SECRET-KEY-1GEHEIM\n")
    return str(tmp_path / "key")


def test_the_newest_bundle_made_after_init(state: State) -> None:
    state.bundle({**BUNDLE, "password": "oldest", "repository_id": "1"}, age=30)
    state.bundle({**BUNDLE, "password": "newer", "repository_id": "1", "environment": {"A": "b"}}, age=20)
    state.bundle({**BUNDLE, "password": "before init"}, age=0)
    assert state.read() == {"vault": {"password": "newer", "rest_password": "rest", "environment": {"A": "b"}}}


def test_a_change_of_the_password_that_may_not_have_ended(state: State) -> None:
    known = {**BUNDLE, "rest_password": None, "repository_id": "1"}
    state.bundle({**known, "password": "first", "made": 1})
    state.bundle({**known, "password": "first", "next_password": "second", "made": 2})
    assert state.read() == {"vault": {"password": "first", "next_password": "second", "made": 2}}
    state.bundle({**known, "password": "second", "made": 3})
    # The key of the first one may still be there; restic says so.
    assert state.read() == {"vault": {"password": "second", "old_password": "first", "made": 3}}
    state.bundle({**known, "password": "second", "next_password": "third", "made": 4})
    # No change begins before the one before has ended.
    assert state.read() == {"vault": {"password": "second", "next_password": "third", "made": 4}}


def test_what_is_no_bundle_is_not_read(state: State) -> None:
    path = state.bundle(BUNDLE)
    (path.parent / ".tmp1234").write_text("junk")
    (path.parent / "README").mkdir()
    assert state.read() == {"vault": {"password": "geheim", "rest_password": "rest"}}


ODD = [
    b"[" * 100000,
    b'{"password": "x", "rest_password": ["y"]}',
    b'{"password": "x", "next_password": ["y"]}',
    b'{"password": "x", "environment": "LD_PRELOAD=y"}',
    b'{"password": "x", "environment": {"A": {"b": 1}}}',
]


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"[]", b"5", b"\xff\xfe", b'{"password": 5}', b"{}", b'[["a", "b"]]', *ODD]
)
def test_damaged_bundles(state: State, content: bytes) -> None:
    state.bundle(content)
    with pytest.raises(ValueError, match="is damaged"):
        state.read()


def test_a_missing_bundle(state: State) -> None:
    with pytest.raises(ValueError, match="no escrow bundle of vault"):
        state.read()
    (state.path / "escrow" / "vault").mkdir(parents=True)
    with pytest.raises(ValueError, match="no escrow bundle of vault"):
        state.read()


def test_bundles_under_another_inventory_name_are_named(tmp_path: Path) -> None:
    """A lost client was replaced under a new name and kept its backup_id."""

    def refused(backup_id: str | None = "web1") -> str:
        with pytest.raises(ValueError, match="no escrow bundle of vault") as error:
            _escrow_read.secrets_of(str(tmp_path / "hosts/web9"), ["vault"], None, backup_id)
        return str(error.value)

    assert "was provisioned with" in refused()
    known = {"web1": "web1", "web%3A1": "other", "db1": "web1", "vault1": None, "odd": 5}
    for name, backup_id in known.items():
        (tmp_path / "hosts" / name).mkdir(parents=True)
        if backup_id:
            content = json.dumps({"repositories": {"vault": backup_id} if name != "odd" else backup_id})
            (tmp_path / "hosts" / name / "identity.json").write_text(content)
    State(tmp_path / "hosts/web1").bundle(BUNDLE)
    said = refused()
    assert f"But {tmp_path}/hosts/web1 has some of backup_id web1" in said
    # What has this backup_id and no bundle of the repository is no help.
    assert "db1" not in said
    for other in ("web2", None):
        assert "was provisioned with" in refused(other)
    command = said.partition("inventory name, ")[2]
    assert command.startswith(f"mkdir -p {tmp_path}/hosts/web9 && cp -r ")
    subprocess.run(["sh", "-c", command], check=True, timeout=30)
    assert State(tmp_path / "hosts/web9").read()["vault"]["password"] == "geheim"


def test_a_repository_that_the_host_never_had(state: State) -> None:
    """It was declared after the host was lost: nothing of it is there to be put back."""
    state.bundle(BUNDLE)
    assert set(state.read(None, "vault", "later")) == {"vault"}


@pytest.mark.parametrize("sign", ["rest/later.json", "ssh/later.pub", "escrow/later/x"])
def test_a_repository_whose_bundle_alone_is_missing(state: State, sign: str) -> None:
    state.bundle(BUNDLE)
    (state.path / sign).parent.mkdir(parents=True)
    (state.path / sign).write_text("x")
    with pytest.raises(ValueError, match="no escrow bundle of later"):
        state.read(None, "vault", "later")


@pytest.mark.parametrize("repository", ["../other", "", "a/b", "A"])
def test_names_of_repositories(state: State, repository: str) -> None:
    with pytest.raises(ValueError, match="not the name of a repository"):
        state.read(None, repository)


def test_the_key_is_asked_for(state: State, tmp_path: Path) -> None:
    state.bundle(BUNDLE, ".age")
    with pytest.raises(ValueError, match="escrow_key: is missing"):
        state.read()
    with pytest.raises(ValueError, match="is not a file"):
        state.read(str(tmp_path / "none"))


@pytest.mark.usefixtures("fake_age")
def test_bundles_are_opened(state: State, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state.bundle(BUNDLE, ".age")
    assert state.read(key)["vault"]["password"] == "geheim"
    monkeypatch.setenv("HOME", os.path.dirname(key))
    assert state.read("~/key")["vault"]["password"] == "geheim"


def test_a_bundle_for_other_recipients_does_not_count(state: State, fake_age: Path, key: str) -> None:
    fake_age.write_text(
        '#!/bin/sh\nfor last; do :; done\ngrep -q mine "$last" || { echo "age: error: no identity matched" >&2; exit 1; }\ncat "$last"\n'
    )
    state.bundle({**BUNDLE, "password": "theirs"}, ".age")
    with pytest.raises(ValueError, match="no identity matched"):
        state.read(key)
    state.bundle({**BUNDLE, "password": "mine"}, ".age", age=100)
    assert state.read(key)["vault"]["password"] == "mine"


def test_an_age_that_says_nothing_or_hangs(
    state: State, fake_age: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.bundle(BUNDLE, ".age")
    fake_age.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ValueError, match="exit status 3"):
        state.read(key)
    fake_age.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(_escrow_read, "AGE_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"within 0\.2 s"):
        state.read(key)
    fake_age.unlink()
    monkeypatch.setenv("PATH", str(fake_age.parent))
    with pytest.raises(ValueError, match="apt install age"):
        state.read(key)


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
def test_with_age_itself(state: State, tmp_path: Path, key: str) -> None:
    good = tmp_path / "good.key"
    subprocess.run(["age-keygen", "-o", str(good)], check=True, capture_output=True, timeout=30)
    public = next(line.split()[-1] for line in good.read_text().splitlines() if "public key" in line)
    sealed = subprocess.run(
        ["age", "-r", public], input=json.dumps(BUNDLE).encode(), capture_output=True, check=True, timeout=30
    )
    state.bundle(sealed.stdout, ".age")
    assert state.read(str(good))["vault"]["password"] == "geheim"
    with pytest.raises(ValueError, match="age cannot open") as caught:
        state.read(key)
    assert "GEHEIM" not in str(caught.value).upper().replace(key.upper(), "")


def test_the_newest_bundle_says_so_itself(state: State) -> None:
    # The file of the older bundle is the younger one, as after a clone of the state directory.
    state.bundle({"password": "new", "repository_id": "1", "made": 2000}, age=500)
    state.bundle({"password": "old", "repository_id": "1", "made": 1000}, age=0)
    assert state.read() == {"vault": {"password": "new", "made": 2000}}


def test_bundles_of_another_backup_id_count_where_there_is_none_of_this_one(state: State) -> None:
    state.bundle({**BUNDLE, "password": "own", "host": "web1", "repository_id": "1", "made": 1})
    state.bundle({**BUNDLE, "password": "other", "host": "web1-new", "repository_id": "2", "made": 2})

    def read(backup_id: str | None) -> str:
        found: str = _escrow_read.secrets_of(str(state.path), ["vault"], None, backup_id)[0]["vault"]["password"]
        return found

    assert (read("web1"), read("web1-new")) == ("own", "other")
    assert read("web2") == read(None) == "other"


def test_a_bundle_from_the_future_is_not_preferred(state: State) -> None:
    """A client that is in somebody else's hands writes what it likes; a clock may also be a little ahead."""
    good = state.bundle({**BUNDLE, "password": "good", "repository_id": "1", "made": NOW + 3600})
    assert state.take() == ({"vault": "good"}, "")
    forged = state.bundle({**BUNDLE, "password": "good", "repository_id": "1", "made": NOW + 10**8})
    never = state.bundle({**BUNDLE, "password": "good", "repository_id": "1", "made": 10**30})
    found, told = state.take()
    assert found == {"vault": "good"}
    assert f"{forged.name} (2030-03-17T17:46:40Z)" in told
    assert f"{never.name} (a time that no clock shows)" in told
    assert f"{good.name} (2027-01-15T09:00:00Z) is taken" in told
    # Where there is no other, one of them is.
    good.unlink()
    assert f"{never.name} (a time that no clock shows) is taken" in state.take()[1]


def test_the_future_is_told_by_this_clock(state: State) -> None:
    state.bundle({**BUNDLE, "password": "old", "repository_id": "1", "made": 1})
    state.bundle({**BUNDLE, "password": "new", "repository_id": "1", "made": 10**11})
    assert state.read()["vault"]["password"] == "old"
    assert len(state.told) == 2


def test_passwords_that_no_rotation_links_are_told(state: State) -> None:
    known = {**BUNDLE, "repository_id": "1"}
    state.bundle({**BUNDLE, "password": "first", "made": 1})
    state.bundle({**known, "password": "first", "made": 2})
    state.bundle({**known, "password": "first", "next_password": "second", "made": 3})
    state.bundle({**known, "password": "third", "made": 5})
    newest = state.bundle({**known, "password": "second", "next_password": "third", "made": 4})
    newest = state.bundle({**known, "password": "third", "made": 6})
    assert state.take() == ({"vault": "third"}, "")
    forged = state.bundle({**known, "password": "forged", "made": 7})
    odd = state.bundle({**known, "password": "odd"})
    found, told = state.take()
    assert found == {"vault": "forged"}
    assert told.startswith(
        "vault: its escrow bundles hold different passwords, and no rotation leads from one to the other"
    )
    assert (
        f"{forged.name} (1970-01-01T00:00:07Z) is taken; the newest of the others: {newest.name} (1970-01-01T00:00:06Z),"
        f" {odd.name} (an unknown time)"
    ) in told
    assert "-e bundle=NAME" in told
    assert not re.search("first|third|odd", told)


def test_its_user_says_which_bundle_is_taken(state: State) -> None:
    known = {**BUNDLE, "repository_id": "1"}
    good = state.bundle({**BUNDLE, "password": "good", "made": 1})
    state.bundle({**known, "password": "forged", "made": 10**11})
    other = state.bundle({**BUNDLE, "password": "other", "made": 1}, repository="offsite")
    state.bundle({**BUNDLE, "password": "other", "made": 2}, repository="offsite")
    assert state.take(good) == ({"vault": "good", "offsite": "other"}, "")
    assert state.take(good, other) == ({"vault": "good", "offsite": "other"}, "")


def test_a_bundle_that_cannot_be_taken(state: State) -> None:
    first, second = state.bundle(BUNDLE), state.bundle(BUNDLE)
    with pytest.raises(ValueError, match=f"bundle = nothing.age: .*{state.path}/escrow") as caught:
        state.take(first, Path("nothing.age"))
    assert first.name not in str(caught.value)
    with pytest.raises(ValueError, match="bundle: names two of vault"):
        state.take(first, second)
    second.write_text("junk")
    assert state.take() == ({"vault": "geheim"}, "")
    with pytest.raises(ValueError, match=f"{second.name} is damaged"):
        state.take(second)
