# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module escrow_copies: what is there stays as it is, and nothing but ciphertext comes to it."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.modules import escrow_copies

NAMES = [f"{digit * 32}-{'a' * 16}.age" for digit in "01"]
FIRST, SECOND = (f"web1--vault/{name}" for name in NAMES)


def sealed(text: bytes) -> str:
    return base64.b64encode(b"age-encryption.org/v1\n" + text).decode()


class Server:
    """The module on a directory."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = root / "holdfast/escrow"
        self._capsys = capsys

    def __call__(self, bundles: dict[str, str], *, check: bool = False) -> dict[str, Any]:
        arguments = {"bundles": bundles, "directory": str(self.directory), "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            escrow_copies.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Server:
    tmp_path.chmod(0o755)
    return Server(tmp_path, capsys)


def test_added_once_and_readable_by_root_only(server: Server) -> None:
    bundles = {FIRST: sealed(b"1"), SECOND: sealed(b"2")}
    announced = server(bundles, check=True)
    assert not server.directory.exists()
    done = server(bundles)
    assert (announced["added"], announced["diff"]) == (done["added"], done["diff"])
    assert done["added"] == {"web1--vault": NAMES}
    assert server.files() == {name: base64.b64decode(text) for name, text in bundles.items()}
    assert stat.S_IMODE((server.directory / FIRST).stat().st_mode) == 0o400
    for directory in (server.directory, server.directory / "web1--vault"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not server(bundles)["changed"]


def test_what_is_there_stays_as_it_is(server: Server) -> None:
    server({FIRST: sealed(b"1")})
    before = server.files()
    again = server({FIRST: sealed(b"other"), SECOND: sealed(b"2")})
    assert again["added"] == {"web1--vault": [NAMES[1]]}
    assert server.files() == {**before, SECOND: base64.b64decode(sealed(b"2"))}
    server({})
    assert set(server.files()) == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (FIRST, base64.b64encode(b'{"password": "x"}').decode(), "not encrypted by age"),
        (FIRST, sealed(b"x" * 70000), "longer than"),
        (FIRST, "???", "not base64"),
        (FIRST, "", "not encrypted by age"),
        (FIRST.replace(".age", ".json"), sealed(b"1"), "is not <backup_id>--<repository>"),
        (f"../{FIRST}", sealed(b"1"), "is not <backup_id>--<repository>"),
        (f"web1--vault/{UNBORN}", sealed(b"1"), "is not <backup_id>--<repository>"),
    ],
)
def test_anything_else_is_refused_before_anything_is_written(
    server: Server, name: str, content: str, words: str
) -> None:
    result = server({SECOND: sealed(b"2"), name: content})
    assert words in result["msg"]
    assert not server.directory.exists()


def test_what_the_real_run_makes_is_announced(server: Server) -> None:
    announced = server({f"web1--vault/{UNBORN}": "", FIRST: ""}, check=True)
    assert announced["added"] == {"web1--vault": [NAMES[0], UNBORN]}
