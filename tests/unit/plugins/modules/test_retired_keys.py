# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module retired_keys: exactly one key goes, it is kept, and what a hostile client says harms nobody else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _rclone
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.modules import retired_keys

from tests.unit.plugins.modules.s3_store import RCLONE, serving

OLD, NEW, OTHER = (hashlib.sha256(text).hexdigest() for text in (b"old", b"new", b"other"))


class Server:
    """A directory of repositories, and the module run on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.binary = RCLONE
        self._capsys = capsys
        for client in ("web1", "web2"):
            for text in (b"old", b"new", b"other"):
                path = self.keys(client) / hashlib.sha256(text).hexdigest()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)

    def keys(self, client: str = "web1") -> Path:
        return self.root / f"{client}--vault/keys"

    def names(self, client: str = "web1") -> set[str]:
        return {path.name for path in self.keys(client).iterdir()}

    def key(self, **options: Any) -> dict[str, Any]:
        return {"name": "web1--vault", "path": str(self.root / "web1--vault"), "old": OLD, "new": NEW, **options}

    def __call__(self, *keys: dict[str, Any], check: bool = False) -> dict[str, Any]:
        arguments = {
            "keys": list(keys),
            "directory": str(self.root / "kept"),
            "binary": self.binary,
            "_ansible_check_mode": check,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            retired_keys.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result


@pytest.fixture
def server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Server:
    return Server(tmp_path, capsys)


def test_one_key_goes_and_is_kept(server: Server) -> None:
    announced = server(server.key(), check=True)
    assert server.names() == {OLD, NEW, OTHER}
    assert not (server.root / "kept").exists()
    done = server(server.key())
    assert announced["diff"] == done["diff"]
    assert (announced["changed"], done["changed"], done["removed"]) == (True, True, ["web1--vault"])
    assert server.names() == {NEW, OTHER}
    assert server.names("web2") == {OLD, NEW, OTHER}
    kept = server.root / "kept/web1--vault" / OLD
    assert kept.read_bytes() == b"old"
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o400, 0o700)
    again = server(server.key())
    assert (again["changed"], again["absent"]) == (False, ["web1--vault"])


def test_a_key_that_is_born_later_is_announced(server: Server) -> None:
    assert server(server.key(old=UNBORN, new=UNBORN), check=True)["removed"] == ["web1--vault"]
    assert "64 hexadecimal" in server(server.key(old=UNBORN, new=UNBORN))["refused"]["web1--vault"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "../web1--vault"}, "is not <backup_id>--<repository>"),
        ({"path": None}, "exactly one of path and remote"),
        ({"remote": "s3:bucket/web1--vault"}, "exactly one of path and remote"),
        ({"path": None, "remote": "s3:bucket/web1--vault"}, "config and account"),
        ({"path": "/srv/x/../y"}, "short form"),
    ],
)
def test_bad_input_is_refused_before_any_change(server: Server, options: dict[str, Any], said: str) -> None:
    other = server.key(name="web2--vault", path=str(server.root / "web2--vault"))
    done = server(other, server.key(**options))
    assert done["failed"]
    assert said in done["msg"]
    assert server.names("web2") == {OLD, NEW, OTHER}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"old": "../config"}, "64 hexadecimal digits"),
        ({"old": OLD[:8]}, "64 hexadecimal digits"),
        ({"old": OLD + "\n"}, "64 hexadecimal digits"),
        ({"new": NEW.upper()}, "64 hexadecimal digits"),
        ({"old": NEW}, "is the key that is to stay"),
        ({"new": NEW[:8]}, "64 hexadecimal digits"),
    ],
)
def test_keys_that_are_none_are_refused_to_who_names_them(server: Server, options: dict[str, Any], said: str) -> None:
    """They are the word of a client: no other one is kept from its end."""
    other = server.key(name="web2--vault", path=str(server.root / "web2--vault"))
    done = server(server.key(**options), other)
    assert said in done["refused"]["web1--vault"]
    assert done["removed"] == ["web2--vault"]
    assert server.names() == {OLD, NEW, OTHER}


def test_one_key_of_a_repository_goes_at_a_time(server: Server) -> None:
    done = server(server.key(), server.key(old=OTHER))
    assert done["removed"] == ["web1--vault"]
    assert "more than one key" in done["refused"]["web1--vault"]
    assert server.names() == {NEW, OTHER}


def test_what_one_client_said_does_not_keep_the_keys_of_others(server: Server) -> None:
    """The key that is to stay is not there; a key is none; links lead elsewhere."""
    other = server.key(name="web2--vault", path=str(server.root / "web2--vault"))
    (server.keys() / NEW).unlink()
    done = server(server.key(), other)
    assert "is not there" in done["refused"]["web1--vault"]
    assert done["removed"] == ["web2--vault"]
    assert server.names() == {OLD, OTHER}

    (server.keys() / NEW).write_bytes(b"new")
    (server.keys() / OLD).write_bytes(b"something else")
    assert "damaged" in server(server.key())["refused"]["web1--vault"]
    (server.keys() / OLD).write_bytes(b"x" * 65537)
    assert "too large" in server(server.key())["refused"]["web1--vault"]
    (server.keys() / OLD).unlink()
    secret = server.root / "secret"
    secret.write_bytes(b"old")
    (server.keys() / OLD).symlink_to(secret)
    assert server(server.key())["absent"] == ["web1--vault"]
    assert secret.exists()


def test_a_link_in_place_of_the_keys_is_not_followed(server: Server) -> None:
    server.keys().rename(server.root / "elsewhere")
    server.root.chmod(0o777)
    server.keys().symlink_to(server.root / "elsewhere")
    server.keys().parent.chmod(0o777)
    assert "symbolic link" in server(server.key())["refused"]["web1--vault"]
    assert len(list((server.root / "elsewhere").iterdir())) == 3


@pytest.mark.skipif(os.geteuid() != 0 or not RCLONE, reason="runs rclone as another account: needs root, and rclone")
def test_a_key_of_a_store_goes_through_rclone(server: Server, place: Path) -> None:
    place.chmod(0o755)
    # Where the account may start it: a clone may lie where only its owner comes.
    server.binary = str(shutil.copy(RCLONE, place / "rclone"))
    config = place / "s3.conf"
    key = {"path": None, "remote": "s3:bucket/web1--vault", "config": str(config), "account": "daemon"}
    bucket = server.root / "bucket"
    bucket.mkdir()
    (server.root / "web1--vault").rename(bucket / "web1--vault")
    server.root = bucket
    with serving(bucket.parent) as options:
        config.write_text(_rclone.render("s3", options))
        announced = server(server.key(**key), check=True)
        assert server.names() == {OLD, NEW, OTHER}
        # A store that lets its proxy delete nothing: which file somebody else has to remove is said.
        binary, server.binary = server.binary, str(place / "keeps")
        Path(server.binary).write_text(
            "#!/bin/sh\n"
            'if [ "$1" = deletefile ]; then echo "ERROR : AccessDenied: Access Denied" >&2; exit 1; fi\n'
            f'exec {binary} "$@"\n'
        )
        Path(server.binary).chmod(0o755)
        kept = server(server.key(**key))
        assert (kept["changed"], kept["removed"]) == (False, [])
        assert f"s3:bucket/web1--vault/keys/{OLD} cannot be removed" in kept["refused"]["web1--vault"]
        assert "AccessDenied" in kept["refused"]["web1--vault"]
        assert server.names() == {OLD, NEW, OTHER}
        server.binary = binary
        done = server(server.key(**key))
        assert announced["removed"] == done["removed"] == ["web1--vault"]
        assert server.names() == {NEW, OTHER}
        assert (bucket / "kept/web1--vault" / OLD).read_bytes() == b"old"
        assert server(server.key(**key))["absent"] == ["web1--vault"]
        assert "not there" in server(server.key(**key, old=OTHER, new=OLD))["refused"]["web1--vault"]
        assert server.names() == {NEW, OTHER}
        config.write_text(_rclone.render("s3", {**options, "secret_access_key": "W0ng-Secret"}))
        refused = server(server.key(**key))
    assert "rclone lsf: " in refused["refused"]["web1--vault"]
    assert "W0ng-Secret" not in json.dumps(refused)
