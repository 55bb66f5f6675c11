# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of a run unit: /etc/holdfast/units/<job>--<repository>.json, written by the roles, without secrets."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, Callable

from .. import _ssh
from .host import UNITS, Host, ProgramError

FORMAT = 1
HOOK_TIMEOUT = 3600
TELL_TIMEOUT = 60
# A run without a limit of its own is still not waited for without end.
LONGEST_RUN = 7 * 86400

_NAME = re.compile(r"\A[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_UNIT = re.compile(r"\A[a-z0-9]+(?:-[a-z0-9]+)*--[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_VARIABLE = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
_REST_URL = re.compile(r"\Arest:https?://[^/@\s]+/\S*\Z")


@dataclasses.dataclass(frozen=True)
class Hook:
    """A command, the account it runs as, and its time limit in seconds."""

    command: tuple[str, ...]
    user: str = "root"
    timeout: int = HOOK_TIMEOUT


@dataclasses.dataclass(frozen=True)
class Dump:
    """A companion unit that saves one dump."""

    name: str
    unit: str


@dataclasses.dataclass(frozen=True)
class Rest:
    """The user on a rest-server, and the repository as restic takes it but without credentials."""

    user: str
    url: str


@dataclasses.dataclass(frozen=True)
class Borg:
    """What a job of borg has beside: the program (the unit's own is borgmatic), and how it opens the repository."""

    binary: str
    encryption: str
    key_file: str
    ssh_command: str | None


@dataclasses.dataclass(frozen=True)
class Definition:
    """One run unit; the fields are the keys of the file. Times are in seconds, paths absolute."""

    job: str
    repository: str
    engine: str
    binary: str
    user: str
    paths: tuple[str, ...]
    optional_paths: tuple[str, ...]
    sources_d: str
    host: str
    tags: tuple[str, ...]
    environment: dict[str, str]
    password_file: str
    repository_file: str
    environment_file: str | None
    record: str
    escrow_mode: str
    pre: tuple[Hook, ...]
    post: tuple[Hook, ...]
    dumps: tuple[Dump, ...]
    on_failure: Hook | None
    incomplete_is: str
    mount: str | None
    access: str
    rest: Rest | None
    timeout_seconds: int | None
    borg: Borg | None = None
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    one_file_system: bool = False
    left_out: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """`<job>--<repository>`."""
        return f"{self.job}--{self.repository}"

    @property
    def service(self) -> str:
        """Name of the systemd service."""
        return f"holdfast-{self.unit}.service"

    @property
    def timer(self) -> str:
        """Name of the systemd timer."""
        return f"holdfast-{self.unit}.timer"

    @property
    def identity_file(self) -> str:
        """The file with REST passwords and the fingerprint of the escrow bundle."""
        return self.repository_file.rsplit(".", 1)[0] + ".identity"

    @property
    def ssh_key_file(self) -> str | None:
        """The private key of a repository that is reached over SSH."""
        return self.repository_file.rsplit(".", 1)[0] + ".ssh_key" if self.access in _ssh.ACCESS else None

    @property
    def secret_files(self) -> tuple[str, ...]:
        """The files without which the unit cannot start."""
        paths = (self.password_file, self.repository_file, self.environment_file, self.ssh_key_file)
        return tuple(path for path in paths if path is not None)

    @property
    def restic(self) -> tuple[str, ...]:
        """How root runs restic on this repository: the program and what it needs to reach it."""
        return (self.binary, *(f"--option={name}={value}" for name, value in sorted(self.options.items())))

    @property
    def job_tag(self) -> str:
        """The tag that every snapshot of this job carries."""
        return f"job:{self.job}"

    @property
    def program(self) -> str:
        """Whose exit codes the unit's own are."""
        return "borgmatic" if self.borg is not None else self.engine

    @property
    def dumps_only(self) -> bool:
        """Whether there are no files to be saved: the run's snapshots are those of its dumps."""
        return not self.paths and not self.optional_paths

    @property
    def longest(self) -> int:
        """Seconds after which nobody waits for a run any more."""
        # systemd's limit counts anew for what comes before restic, for restic, and for what comes after it: of that `post`
        # hooks have limits of their own.
        return 3 * (self.timeout_seconds or LONGEST_RUN) + sum(hook.timeout for hook in self.post) + 600


class _Bad(ValueError):
    """A value outside its type."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value or "\n" in value:
        raise _Bad("is not a line of text")
    return value


def _argument(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _Bad("is not a text without NUL")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.match(value):
            raise _Bad(f"is not {what}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise _Bad(f"is none of {', '.join(choices)}")
        return str(value)

    return check


def _absolute(value: Any) -> str:
    # Paths are taken literally, a newline in one included.
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise _Bad("is not an absolute path")
    return value


def _seconds(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Bad("is not a number of seconds above 0")
    return value


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _list(check: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def check_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Bad("is not a list")
        return tuple(check(each) for each in value)

    return check_all


def _object(value: Any, required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Bad("is not an object")
    unknown, missing = set(value) - set(required) - set(optional), set(required) - set(value)
    if unknown or missing:
        raise _Bad(f"{'has the unknown key' if unknown else 'lacks the key'} {sorted(unknown or missing)[0]!r}")
    result = {}
    for key, check in {**required, **optional}.items():
        if key not in value:
            continue
        try:
            result[key] = check(value[key])
        except _Bad as error:
            raise _Bad(f"`{key}` {error}") from error
    return result


def _hook(value: Any) -> Hook:
    found = _object(value, {"command": _list(_argument)}, {"user": _text, "timeout": _seconds})
    if not found["command"]:
        raise _Bad("has an empty `command`")
    return Hook(**found)


def _tell(value: Any) -> Hook:
    return _hook({"timeout": TELL_TIMEOUT, **value} if isinstance(value, dict) else value)


def _dump(value: Any) -> Dump:
    return Dump(**_object(value, {"name": _matching(_NAME, "a name"), "unit": _text}, {}))


def _rest(value: Any) -> Rest:
    url = _matching(_REST_URL, "of the form rest:https://HOST:PORT/PATH/ without credentials")
    return Rest(**_object(value, {"user": _text, "url": url}, {}))


def _borg(value: Any) -> Borg:
    fields = {
        "binary": _absolute,
        "encryption": _one_of("repokey-blake2", "keyfile-blake2"),
        "key_file": _absolute,
        "ssh_command": _optional(_text),
    }
    return Borg(**_object(value, fields, {}))


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(_VARIABLE.match(name) for name in value):
        raise _Bad("is not an object of variables")
    return {name: _argument(each) for name, each in value.items()}


def _options(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(re.match(r"\A[a-z0-9]+\.[a-z0-9-]+\Z", name) for name in value):
        raise _Bad("is not an object of extended options of restic")
    return {name: _text(each) for name, each in value.items()}


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Bad("is neither true nor false")
    return value


def _expression(value: Any) -> str:
    try:
        re.compile(_text(value).lstrip("!"))
    except re.error as error:
        raise _Bad(f"is no regular expression: {error}") from error
    return str(value)


def _escrow(value: Any) -> str:
    mode: str = _object(value, {"mode": _one_of("age", "none", "controller", "local")}, {})["mode"]
    return mode


def _format(value: Any) -> int:
    if value != FORMAT:
        raise _Bad(f"is {value!r}, this program reads {FORMAT}")
    return FORMAT


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "format": _format,
    "job": _matching(_NAME, "a name"),
    "repository": _matching(_NAME, "a name"),
    "engine": _one_of("restic", "borg"),
    "binary": _absolute,
    "user": _text,
    "paths": _list(_absolute),
    "optional_paths": _list(_absolute),
    "sources_d": _absolute,
    "host": _text,
    "tags": _list(_text),
    "environment": _environment,
    "password_file": _absolute,
    "repository_file": _absolute,
    "environment_file": _optional(_absolute),
    "record": _absolute,
    "escrow": _escrow,
    "pre": _list(_hook),
    "post": _list(_hook),
    "dumps": _list(_dump),
    "on_failure": _optional(_tell),
    "incomplete_is": _one_of("failed", "ok"),
    "mount": _optional(_absolute),
    "access": _one_of("rest", "local", "url", "ssh", "s3", "rclone", "sftp"),
    "rest": _optional(_rest),
    "timeout_seconds": _optional(_seconds),
}
# What a definition may lack that an earlier version wrote.
_OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "options": _options,
    "borg": _optional(_borg),
    "one_file_system": _boolean,
    "left_out": _list(_absolute),
    "excluded": _list(_expression),
    "disks": _list(_absolute),
}


def parse(text: str) -> Definition:
    """Read the text of a definition. Raises ValueError with key and reason."""
    found = _object(json.loads(text), _FIELDS, _OPTIONAL)
    del found["format"]
    found["escrow_mode"] = found.pop("escrow")
    if (found["access"] == "rest") != (found["rest"] is not None):
        raise _Bad("`rest` goes with access `rest`, and only with it")
    if (found["engine"] == "borg") != (found.get("borg") is not None):
        raise _Bad("`borg` goes with engine `borg`, and only with it")
    definition = Definition(**found)
    if definition.dumps_only and not definition.dumps:
        raise _Bad("has neither `paths` nor `optional_paths` nor `dumps`")
    return definition


def load(host: Host, unit: str) -> Definition:
    """The definition of run unit `unit`. Raises ProgramError when there is none, or a bad one."""
    if not _UNIT.match(unit):
        raise ProgramError(f"{unit!r} is no run unit; give JOB--REPOSITORY", 2)
    path = f"{UNITS}/{unit}.json"
    try:
        definition = parse(host.path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProgramError(f"there is no run unit {unit} on this host; see: holdfast status", 2) from None
    except (OSError, ValueError) as error:
        raise ProgramError(f"{path} cannot be used: {error}; run the site playbook for this host") from error
    if definition.unit != unit:
        raise ProgramError(f"{path} defines {definition.unit}; run the site playbook for this host")
    return definition


def names(host: Host) -> list[str]:
    """The run units of this host, sorted."""
    return sorted(path.stem for path in host.path(UNITS).glob("*.json"))


def resolve(host: Host, job: str) -> list[Definition]:
    """The run units of `job`, which is JOB (in all its repositories) or JOB--REPOSITORY. Raises ProgramError if none."""
    found = [name for name in names(host) if job in (name, name.split("--")[0])]
    if not found:
        jobs = sorted({name.split("--")[0] for name in names(host)})
        raise ProgramError(f"there is no job {job!r} on this host; there are: {', '.join(jobs) or 'none'}", 2)
    return [load(host, name) for name in found]


def resolve_one(host: Host, job: str) -> Definition:
    """The only run unit of `job`. Raises ProgramError when the job has several repositories."""
    found = resolve(host, job)
    if len(found) > 1:
        units = ", ".join(each.unit for each in found)
        raise ProgramError(f"job {job} has several repositories; say which: {units}", 2)
    return found[0]
