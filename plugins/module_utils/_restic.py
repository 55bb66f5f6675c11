# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""restic: one method a subcommand, and what its answers say about a repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import _causes, _keyless, _locks
from ._model import Lock, Repository, Snapshot, Snapshots, age, format_time, parse_time
from ._outcome import ABSENT, DAMAGED, LOCKED, PRESENT, UNREACHABLE, WRONG_KEY, meaning
from ._run import PATH, Result, run
from ._source import Source

ENGINE = "restic"
# Below this, exit codes do not prove absence, and init does not see that a repository has keys already.
INIT_MINIMUM = (0, 17, 1)

# restic tries a backend that refuses again for up to 15 minutes. One try more is enough to know.
_RETRY = re.compile(r"returned error, retrying after")
_RETRIES = 2

# Locks are rare, and each costs an opening to read.
_LOCKS_READ = 4

# Whole ids; restic before 0.17 shows the beginning of a key's.
_ID = re.compile(r"\A[0-9a-f]{8,64}\Z")
_VERSION = re.compile(r"\brestic (\d+)\.(\d+)\.(\d+)")
_URL_SECRET = re.compile(r"(?<=//)[^/@\s\"]*@")
_PROOF = re.compile(
    r"\AFatal: unable to open config file: "
    r"(?:<config/> does not exist|stat \S.*: no such file or directory|Stat: The specified key does not exist\.)\Z"
)

# Texts that decide when the exit code only says "failed"; the first that matches counts. Order: certain things first.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (r"wrong password or no key found", WRONG_KEY, meaning(ENGINE, 12).words),
    (r"Resolving password failed", WRONG_KEY, "the password file cannot be used"),
    (r"repository is already locked", LOCKED, meaning(ENGINE, 11).words),
    (r"config file has zero size", DAMAGED, "the config file is empty: restore it from a copy"),
    (
        r"only supported KDF is scrypt|LoadRaw\(<key/|<key/[0-9a-f]+>: invalid data|Fatal: Unmarshal: ",
        DAMAGED,
        "a file in keys/ is not a key: remove it where the repository lies, or open with the key on record",
    ),
    (r"ciphertext verification failed|is damaged:", DAMAGED, "config or a key is damaged: restore it from a copy"),
    (r"^panic: ", DAMAGED, "restic crashed while opening it: config or a key is damaged"),
    (r"repository already contains keys", DAMAGED, "there are keys but no config file: restore it from a copy"),
    (r"HTTP response \((?:401|403)\)", UNREACHABLE, "HTTP {code}: the server refused user or password"),
    (r"HTTP response \(\d+\)", UNREACHABLE, "HTTP {code}"),
    (r"x509: ([^\n]+)", UNREACHABLE, "TLS: {text}"),
    (r"server gave HTTP response to HTTPS client", UNREACHABLE, "TLS: the server speaks plain HTTP"),
    (r"tls: ([^\n]+)", UNREACHABLE, "TLS: {text}"),
    # What the server's own program for SSH has to say.
    (r"holdfast: ([^\n]+)", UNREACHABLE, "the server says: {text}"),
    (r"connection refused", UNREACHABLE, "connection refused"),
    (r"no such host|Could not resolve hostname|server misbehaving", UNREACHABLE, "the host name does not resolve"),
    (
        r"i/o timeout|[Nn]o route to host|[Nn]etwork is unreachable|deadline exceeded|Connection timed out",
        UNREACHABLE,
        "the server does not answer",
    ),
    (
        r"error talking HTTP to rclone: exit status 255|unable to start the sftp session",
        UNREACHABLE,
        "the SSH connection could not be made",
    ),
    (r"permission denied", UNREACHABLE, "permission denied"),
    (rf"(?i){_causes.STORE_TROUBLE}", UNREACHABLE, "the store is overloaded, or has an error of its own"),
)


class EngineError(Exception):
    """An engine said something that cannot be understood, or cannot be run; the message holds no secret."""


class MissingBinaryError(EngineError):
    """The engine's program is not there (yet)."""


@dataclass(frozen=True)
class Look:
    """What opening a repository showed; `reason` in words when the state is not `present`.

    `exported` is the repository's own key as borg exports it: as good as the key file, so it is never shown.
    """

    state: str
    reason: str | None = None
    id: str | None = None
    format_version: int | None = None
    key: str | None = None
    exported: str | None = field(default=None, repr=False)


def find_binary(name: str) -> str:
    """Return the path of a program given by name or absolute path. Raises MissingBinaryError."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise MissingBinaryError(f"binary: {name!r} is not installed: install it or give the path of the program")
    return found


def _scrub(text: str, secrets: Sequence[str]) -> str:
    """Return one short line without the secrets that we know of and without user information in URLs."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return _URL_SECRET.sub("", " ".join(printable.split()))[:200]


def _fatal(text: str) -> str:
    """Return the line of `text` that says why a command failed."""
    lines = [line for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("Fatal: ")]
    return re.sub(r"\A(?:Fatal: |.*returned error, retrying after [^:]*: )+", "", (fatal or lines or ["no message"])[0])


def _message(stderr: str) -> str:
    """Return standard error with the message of a JSON error line in place of the line."""
    lines = []
    for line in stderr.splitlines():
        try:
            lines.append(str(json.loads(line)["message"]))
        except (ValueError, KeyError, TypeError):
            lines.append(line)
    return "\n".join(lines)


def _proves_absence(text: str) -> bool:
    """Tell whether the words of a restic before 0.17 are exactly those of a missing repository: doubt is no proof."""
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        len(lines) <= 3
        and bool(lines)
        and _PROOF.match(lines[0]) is not None
        and (len(lines) < 2 or lines[1] == "Is there a repository at the following location?")
    )


def classify(result: Result, *, timeout: float = 0, secrets: Sequence[str] = ()) -> tuple[str, str | None]:
    """Return state and reason of a repository from what a command said that had to open it.

    The exit code decides where it proves something (0.17 and later), else the words do. What cannot be told is
    `unreachable`: never `absent`, so that nobody initialises in doubt.
    """
    text = _message(result.stderr)
    known = meaning(ENGINE, result.code)
    early = result.timed_out or result.stopped
    if known.state == PRESENT and not early:
        return PRESENT, None
    if known.state is not None and not early:
        return known.state, known.words
    cause = _causes.cause(text)
    if cause is not None:
        return UNREACHABLE, cause.words
    for pattern, state, words in _TEXTS:
        match = re.search(pattern, text, re.MULTILINE)
        if match is None or (early and state != UNREACHABLE):
            continue
        code = re.search(r"\((\d+)\)", match.group(0))
        detail = _scrub(match.group(1), secrets) if match.re.groups else ""
        return state, words.format(code=code.group(1) if code else "", text=detail)
    if result.timed_out:
        return UNREACHABLE, f"no answer within {timeout:g} s"
    if result.code == 1 and not early and _proves_absence(text):
        return ABSENT, meaning(ENGINE, 10).words
    if known.words and result.code != 1 and not early:
        return UNREACHABLE, f"{known.words}: {_scrub(_fatal(text), secrets)}"
    return UNREACHABLE, _scrub(_fatal(text), secrets)


class Restic:
    """restic on one repository. Reading commands take no lock and wait for none.

    `timeout` is the time in seconds for everything that this object does. With `user` restic runs as that account, and
    the secret files, which it may not read itself, are handed to it in memory.
    """

    def __init__(
        self,
        source: Source,
        *,
        binary: str,
        timeout: float,
        options: Mapping[str, str] | None = None,
        cache_directory: str | None = None,
        key_hint: str | None = None,
        proxy: str | None = None,
        user: str | None = None,
        runner: Callable[..., Result] = run,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._binary = binary
        self._timeout = timeout
        self._options = dict(options or {})
        self._cache_directory = cache_directory
        self._key_hint = key_hint
        self._proxy = proxy
        self._user = user
        self._runner = runner
        self._clock = clock
        self._deadline = clock() + timeout

    def _run(
        self,
        *arguments: str,
        other: Source | None = None,
        patient: bool = False,
        secrets: Mapping[str, bytes] | None = None,
    ) -> Result:
        """Run a subcommand; `patient` lets restic try a refusing backend again until the time is over.

        `secrets` are options that take a file, and what is in it.
        """
        values, files = self.source.variables("RESTIC_")
        # As in a unit, what the backend's own variables say counts more.
        proxy = {} if self._proxy is None else dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), self._proxy)
        environment = {**proxy, **self.source.environment, **values}
        certificates = [self.source.cacert]
        if other is not None:
            values, more = other.variables("RESTIC_FROM_")
            environment.update({**other.environment, **values})
            files.update(more)
            certificates.append(other.cacert)
        if self._cache_directory is not None:
            environment["RESTIC_CACHE_DIR"] = self._cache_directory
        if self._key_hint is not None:
            environment["RESTIC_KEY_HINT"] = self._key_hint
        argv = [self._binary]
        if self._cache_directory is None:
            argv.append("--no-cache")
        for certificate in dict.fromkeys(certificates):
            argv += [] if certificate is None else ["--cacert", certificate]
        for name, value in sorted(self._options.items()):
            argv += ["-o", f"{name}={value}"]
        contents: dict[str, bytes] = {}
        if self._user is None:
            environment.update(files)
        else:
            for name, path in files.items():
                with open(path, "rb") as stream:
                    contents[name] = stream.read()
        try:
            return self._runner(
                [*argv, *arguments],
                environment=environment,
                files=contents,
                **({"arguments": secrets} if secrets else {}),
                user=self._user,
                timeout=max(0.1, self._deadline - self._clock()),
                stop_on=None if patient else _RETRY,
                stop_after=_RETRIES,
            )
        except OSError as error:
            raise EngineError(f"{self._binary} cannot be run: {error.strerror}") from None

    def _classify(self, result: Result) -> tuple[str, str | None]:
        """Return state and reason; for a local repository the directory is asked as well.

        One that has keys or data but no config file is damaged, although restic calls it absent and an old one would
        initialise it; one without any key is damaged, although restic blames the password.
        """
        state, reason = classify(result, timeout=self._timeout, secrets=self.source.secrets)
        if state in (ABSENT, WRONG_KEY) and self.source.path is not None:
            found = _keyless.probe(self.source.path)
            if found.state in (DAMAGED, UNREACHABLE):
                return found.state, found.reason
        return state, reason

    def version(self) -> tuple[int, int, int]:
        """Return the version of the program; it opens nothing. Raises EngineError."""
        result = self._run("version")
        match = _VERSION.search(result.stdout)
        if match is None:
            raise EngineError(f"{self._binary} does not tell its version: is it restic?")
        return int(match.group(1)), int(match.group(2)), int(match.group(3))

    def cat_config(self) -> Result:
        """Read the configuration: id, format. Opens the repository."""
        return self._run("--no-lock", "cat", "config")

    def snapshots(self) -> Result:
        """List all snapshots. Opens the repository."""
        return self._run("--no-lock", "snapshots", "--json")

    def ids(self, kind: str) -> list[str] | None:
        """Return the ids of all files of one kind (`locks`, `keys`), None if they cannot be known. Opens the repository."""
        result = self._run("--no-lock", "list", kind)
        if classify(result)[0] != PRESENT:
            return None
        return sorted(line for line in result.stdout.splitlines() if _ID.match(line))

    def lock(self, lock_id: str, now: float) -> Lock:
        """Return what a lock says; one that cannot be read, as it may have gone, says nothing. Opens the repository."""
        try:
            said = json.loads(self._run("--no-lock", "cat", "lock", lock_id).stdout)
            if isinstance(said["exclusive"], bool) and isinstance(said["hostname"], str):
                return Lock(age(said["time"], now), said["exclusive"], said["hostname"])
        except (ValueError, KeyError, TypeError):
            pass
        return Lock()

    def raw_size(self) -> int | None:
        """Return the bytes of all data that snapshots refer to, None if they cannot be known. Reads all directories."""
        result = self._run("--no-lock", "stats", "--mode", "raw-data", "--json")
        try:
            size = json.loads(result.stdout)["total_size"]
        except (ValueError, KeyError, TypeError):
            return None
        return size if isinstance(size, int) else None

    def key_list(self) -> Result:
        """List the keys; the one that the password opened is marked. Opens the repository."""
        return self._run("--no-lock", "key", "list", "--json")

    def key_add(self, password: bytes) -> Result:
        """Make another key, which `password` opens. Opens the repository."""
        return self._run("key", "add", secrets={"--new-password-file": password})

    def key_remove(self, key: str) -> Result:
        """Remove the key with this id. Refuses the one that the password opens."""
        return self._run("key", "remove", key)

    def holders(self, names: Sequence[str]) -> list[str]:
        """Return in words, for each lock that somebody holds, who does. Raises EngineError where that cannot be known."""
        if len(names) > _locks.MOST:
            raise EngineError(f"it has {len(names)} locks, more than are looked at; see: restic list locks")
        found = []
        for name in names:
            try:
                said = json.loads(self._run("--no-lock", "cat", "lock", name).stdout)
            except ValueError:
                said = None
            if not isinstance(said, dict):
                # Nobody can say that nobody holds it.
                raise EngineError(f"what its lock {name[:8]} says cannot be read")
            host, now = os.uname().nodename, time.time()
            who = _locks.holder(said, host=host, binary=self._binary, now=now, running=_locks.program)
            found += [_scrub(who, self.source.secrets)] if who else []
        return found

    def remove_locks(self) -> Result:
        """Remove every lock, after it is clear that nobody holds one: without --remove-all restic would send signals."""
        return self._run("unlock", "--remove-all")

    def init(self, *, repository_version: str | None = None, from_source: Source | None = None) -> Result:
        """Make the repository. Refuses by itself where one is."""
        arguments = ["init", "--json"]
        if repository_version is not None:
            arguments += ["--repository-version", repository_version]
        if from_source is not None:
            arguments.append("--copy-chunker-params")
        return self._run(*arguments, other=from_source, patient=True)

    def look(self, *, key: bool = False) -> Look:
        """Return state, id and format, and with `key` the id of the key that the password opens (a second opening)."""
        result = self.cat_config()
        state, reason = self._classify(result)
        if state != PRESENT:
            return Look(state, reason)
        config = self._parse(result, "cat config", dict)
        repository_id, version = config.get("id"), config.get("version")
        if _ID.match(str(repository_id)) is None or not isinstance(version, int):
            raise EngineError("restic cat config did not answer with an id and a version")
        seen = Look(PRESENT, id=repository_id, format_version=version)
        if not key:
            return seen
        result = self.key_list()
        state, reason = self._classify(result)
        if state != PRESENT:
            return Look(state, reason)
        current = [str(entry.get("id")) for entry in self._parse(result, "key list", list) if entry.get("current")]
        if len(current) != 1 or _ID.match(current[0]) is None:
            raise EngineError("restic key list does not say which key the password opens")
        return replace(seen, key=current[0])

    def explain(self, result: Result) -> str:
        """Return in words, without secrets, why a command failed."""
        if result.timed_out:
            return f"no answer within {self._timeout:g} s"
        return _scrub(_fatal(_message(result.stderr)), self.source.secrets)

    def leftovers(self, result: Result) -> str | None:
        """Return in words what kept `init` from making a repository where none can be opened, None if nothing did."""
        return "there are keys but no config file" if "already contains keys" in self.explain(result) else None

    def _parse(self, result: Result, what: str, kind: type) -> Any:
        try:
            value = json.loads(result.stdout)
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise EngineError(f"restic {what} did not answer in JSON")
        return value

    def inspect(self, *, known_id: str | None = None, size: bool = False, now: float) -> Repository:
        """Return everything that is to be known in at most two openings, one where the id is known, and what `size` costs.

        `now` is in seconds since 1970. Locks and keys are files, so for a local repository they are counted where they
        lie, and for others with `size` only. Locks that are there are read, which costs an opening each. The format is
        null where the id is known already. A snapshot that cannot be read makes the state `damaged`.
        """
        seen = Look(PRESENT, id=known_id) if known_id is not None else self.look()
        if seen.state != PRESENT:
            return self._facts(Repository(self.source.public_location, state=seen.state, reason=seen.reason), size, now)
        result = self.snapshots()
        state, reason = self._classify(result)
        if state != PRESENT:
            return self._facts(Repository(self.source.public_location, state=state, reason=reason), size, now)
        entries = self._parse(result, "snapshots", list)
        found = sorted((_snapshot(entry) for entry in entries), key=lambda item: parse_time(item.time))
        last = found[-1] if found else None
        unreadable = len(re.findall(r"(?:could not|failed to) load snapshot", result.stderr))
        repository = Repository(
            self.source.public_location,
            state=DAMAGED if unreadable else PRESENT,
            reason=f"{unreadable} snapshot files cannot be read" if unreadable else None,
            id=seen.id,
            format_version=seen.format_version,
            snapshots=Snapshots(len(found), last),
            age_seconds=None if last is None else age(last.time, now),
        )
        repository = self._facts(repository, size, now)
        if self.source.path is not None:
            # Their files do not tell who holds them.
            locks = self._locks(now) if 0 < len(repository.locks or ()) <= _LOCKS_READ else None
            return repository if locks is None else replace(repository, locks=locks)
        return replace(
            repository,
            locks=self._locks(now) if size else None,
            keys=self._number_of_keys() if size else None,
            size=self.raw_size() if size else None,
        )

    def _locks(self, now: float) -> list[Lock] | None:
        ids = self.ids("locks")
        if ids is None:
            return None
        return [self.lock(each, now) if number < _LOCKS_READ else Lock() for number, each in enumerate(ids)]

    def _number_of_keys(self) -> int | None:
        ids = self.ids("keys")
        return None if ids is None else len(ids)

    def _facts(self, repository: Repository, size: bool, now: float) -> Repository:
        """Return `repository` with what the file system tells of a local one."""
        if self.source.path is None:
            return repository
        found = _keyless.probe(self.source.path, size=size, now=now)
        return replace(repository, locks=found.locks, keys=found.keys, size=found.size)


def _snapshot(entry: Mapping[str, Any]) -> Snapshot:
    summary = entry.get("summary") or {}
    return Snapshot(
        id=str(entry["id"]),
        time=format_time(parse_time(str(entry["time"]))),
        hostname=entry.get("hostname"),
        paths=entry.get("paths") or [],
        username=entry.get("username"),
        tags=entry.get("tags") or [],
        total_bytes_processed=summary.get("total_bytes_processed"),
    )
