# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._source import MissingFileError, Source, load

SECRET = "correct horse battery staple"


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text(SECRET + "\n")
    return str(path)


def test_by_value(password: str) -> None:
    source = load({"repository": "/srv/r", "password_file": password})
    assert source.path == "/srv/r"
    assert source.variables("RESTIC_") == ({"RESTIC_REPOSITORY": "/srv/r"}, {"RESTIC_PASSWORD_FILE": password})
    assert source.secrets == []


def test_by_file(tmp_path: Path, password: str) -> None:
    location, environment, cacert = tmp_path / "location", tmp_path / "environment", tmp_path / "ca.pem"
    location.write_text("rest:https://user:sesame@host/path/\n")
    environment.write_text("B_KEY=long enough secret\nA=short\n")
    cacert.write_text("certificate")
    source = load(
        {
            "repository_file": str(location),
            "password_file": password,
            "environment_file": str(environment),
            "cacert": str(cacert),
        },
    )
    assert source.public_location == "rest:https://host/path/"
    assert source.path is None
    assert source.cacert == str(cacert)
    assert source.password == SECRET.encode() + b"\n"
    assert source.environment_bytes() == b"A=short\0B_KEY=long enough secret"
    assert source.secrets == ["sesame", "long enough secret"]
    assert source.variables("RESTIC_FROM_") == (
        {},
        {"RESTIC_FROM_PASSWORD_FILE": password, "RESTIC_FROM_REPOSITORY_FILE": str(location)},
    )
    shown = repr(source)
    assert "sesame" not in shown
    assert "secret" not in shown
    assert SECRET not in shown


def test_certificates_that_the_environment_names(tmp_path: Path, password: str) -> None:
    """As an argument: so they count beside those of another repository, where there is one variable for both."""
    environment, cacert = tmp_path / "environment", tmp_path / "ca.pem"
    environment.write_text(f"RESTIC_CACERT={cacert}\n")
    options = {"repository": "/srv/r", "password_file": password, "environment_file": str(environment)}
    wanted = rf"w[.]environment_file: RESTIC_CACERT: {cacert} does not exist"
    with pytest.raises(MissingFileError, match=wanted):
        load(options, "w.")
    cacert.write_text("certificate")
    assert load(options).cacert == str(cacert)
    other = tmp_path / "other.pem"
    other.write_text("certificate")
    assert load({**options, "cacert": str(other)}).cacert == str(other)
    # Restic takes several.
    environment.write_text(f"RESTIC_CACERT={cacert},{other}\n")
    assert load(options).cacert == f"{cacert},{other}"


@pytest.mark.parametrize("options", [{}, {"repository": "/a", "repository_file": "/b"}, {"repository": ""}])
def test_exactly_one_location(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\Ax\.repository: give exactly one"):
        load(options, "x.")


def test_password_file_is_needed() -> None:
    with pytest.raises(ValueError, match="password_file: name the file"):
        load({"repository": "/a", "password_file": None})


@pytest.mark.parametrize("option", ["repository_file", "password_file", "environment_file", "cacert"])
def test_missing_files_are_named(tmp_path: Path, password: str, option: str) -> None:
    missing = str(tmp_path / "missing")
    options = {"repository": "/a", "password_file": password, option: missing}
    if option == "repository_file":
        del options["repository"]
    with pytest.raises(MissingFileError, match=f"w[.]{option}: {missing} does not exist"):
        load(options, "w.")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"password_file: .* cannot be read .Is a directory") as caught:
        load({"repository": "/a", "password_file": str(tmp_path)})
    assert not isinstance(caught.value, MissingFileError)


def test_empty_password(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" \n")
    with pytest.raises(ValueError, match=r"password_file: .* is empty"):
        load({"repository": "/a", "password_file": str(path)})


@pytest.mark.parametrize("text", ["", "\n", "/a\n/b"])
def test_location_is_one_line(tmp_path: Path, password: str, text: str) -> None:
    path = tmp_path / "location"
    path.write_text(text)
    with pytest.raises(ValueError, match="repository: the location must be one line"):
        load({"repository_file": str(path), "password_file": password})


def test_relative_path_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="repository: 'r' is no absolute path"):
        load({"repository": "r", "password_file": password})


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff=1", "not UTF-8"), (b"A=1\nh1dden", "line 2 is not NAME=value")],
    ids=["bytes", "line"],
)
def test_bad_environment(tmp_path: Path, password: str, content: bytes, words: str) -> None:
    path = tmp_path / "environment"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"environment_file: {path}.*{words}") as caught:
        load({"repository": "/a", "password_file": password, "environment_file": str(path)})
    assert "h1dden" not in str(caught.value)


def test_defaults() -> None:
    assert Source("/a", "/p").environment_bytes() == b""
