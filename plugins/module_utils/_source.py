# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Location and credentials of a repository, read from the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._location import local_path, parse_environment, passwords, redact

# Shorter values are not worth hiding and would garble every message.
_SECRET_LENGTH = 8


class MissingFileError(ValueError):
    """A file that an option names is not there (yet)."""


@dataclass(frozen=True)
class Source:
    """A repository: where it is and, by file where it is secret, what opens it."""

    location: str = field(repr=False)
    password_file: str
    repository_file: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cacert: str | None = None
    password: bytes = field(default=b"", repr=False)

    @property
    def public_location(self) -> str:
        """The location without credentials."""
        return redact(self.location)

    @property
    def path(self) -> str | None:
        """The directory of a local repository, else None."""
        return local_path(self.location)

    @property
    def secrets(self) -> list[str]:
        """What must not be shown: passwords in the location, long values of the environment."""
        return [*passwords(self.location), *(v for v in self.environment.values() if len(v) >= _SECRET_LENGTH)]

    def environment_bytes(self) -> bytes:
        """Return the backend's variables in one fixed order, for a fingerprint."""
        return "\0".join(f"{name}={value}" for name, value in sorted(self.environment.items())).encode("utf-8")

    def variables(self, prefix: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the variables that name the repository and its password: by value, and by file."""
        files = {f"{prefix}PASSWORD_FILE": self.password_file}
        if self.repository_file is not None:
            files[f"{prefix}REPOSITORY_FILE"] = self.repository_file
            return {}, files
        return {f"{prefix}REPOSITORY": self.location}, files


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        raise MissingFileError(f"{option}: {path} does not exist: make it, or name the file that is there") from None
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be read ({error.strerror}): correct it") from None


def load(options: Mapping[str, Any], where: str = "") -> Source:
    """Return the source that the options of a module name; `where` is the prefix of option names in messages.

    Options: exactly one of repository and repository_file; password_file; environment_file and cacert if wanted.
    Raises MissingFileError for a file that is not there, ValueError for anything else, naming option and cure.
    """
    repository, repository_file = options.get("repository"), options.get("repository_file")
    if bool(repository) == bool(repository_file):
        raise ValueError(f"{where}repository: give exactly one of repository and repository_file")
    environment: dict[str, str] = {}
    if options.get("environment_file"):
        name = f"{where}environment_file"
        text = _read(options["environment_file"], name)
        try:
            environment = parse_environment(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{name}: {options['environment_file']} is not UTF-8 text: correct it") from None
        except ValueError as error:
            raise ValueError(f"{name}: {options['environment_file']}: {error}") from None
    location = str(repository or "")
    if repository_file:
        location = _read(repository_file, f"{where}repository_file").decode("utf-8", "surrogateescape").strip()
    if not location or any(ord(character) < 32 for character in location):
        raise ValueError(f"{where}repository: the location must be one line that is not empty: correct it")
    try:
        local_path(location)
    except ValueError as error:
        raise ValueError(f"{where}repository: {error}") from None
    password_file = options.get("password_file")
    if not password_file:
        raise ValueError(f"{where}password_file: name the file that holds the repository's password")
    password = _read(password_file, f"{where}password_file")
    if not password.strip():
        raise ValueError(f"{where}password_file: {password_file} is empty: put the repository's password into it")
    cacert, option = options.get("cacert"), "cacert"
    if not cacert:
        cacert, option = environment.get("RESTIC_CACERT"), "environment_file: RESTIC_CACERT"
    # Restic takes several files, between commas.
    for path in cacert.split(",") if cacert else []:
        _read(path, f"{where}{option}")
    return Source(
        location=location,
        password_file=password_file,
        repository_file=repository_file or None,
        environment=environment,
        cacert=cacert or None,
        password=password,
    )
