# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""borg: one method a subcommand, and what its answers say about a repository."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import _causes, _keyless_borg
from ._files import Tree
from ._model import Repository, Snapshot, Snapshots, age, format_time, parse_time
from ._outcome import ABSENT, DAMAGED, INCOMPLETE, OK, PRESENT, UNREACHABLE, Meaning, meaning
from ._restic import EngineError, Look, _scrub
from ._run import Result, account, run
from ._source import Source

ENGINE = "borg"
# Manifests and archives are authenticated, and message ids prove absence.
INIT_MINIMUM = (1, 2, 8)
ENCRYPTIONS = ("repokey-blake2", "keyfile-blake2")
# Nonces, the manifest's time and the location that was seen last: state, and never a cache.
BASE_DIRECTORY = "/var/lib/holdfast/borg"

_ID = re.compile(r"\A[0-9a-f]{64}\Z")
# What stands for the host where none is dialled.
HOST = "holdfast"
_VERSION = re.compile(r"\Aborg (\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_KEY = re.compile(r"\ABORG_KEY ([0-9a-f]{64})\n(?:[A-Za-z0-9+/=]+\n?)+\Z")
# More than any exported key has.
_KEY_BYTES = 65536
_MACHINE_ID = re.compile(r"\A[0-9a-f]{32}\Z")
_REMOTE = "Remote: "
_DENIED = re.compile(r"PermissionError: \[Errno 13\]")

# The name that borg gives an error or a warning with --log-json, and the exit code that borg from 1.4 ends with for it.
CODES: dict[str, int] = {
    "CommandError": 4,
    "Repository.AlreadyExists": 10,
    "Repository.AtticRepository": 11,
    "Repository.CheckNeeded": 12,
    "Repository.DoesNotExist": 13,
    "Repository.InsufficientFreeSpaceError": 14,
    "Repository.InvalidRepository": 15,
    "Repository.InvalidRepositoryConfig": 16,
    "Repository.ObjectNotFound": 17,
    "Repository.ParentPathDoesNotExist": 18,
    "Repository.PathAlreadyExists": 19,
    "Repository.StorageQuotaExceeded": 20,
    "Repository.PathPermissionDenied": 21,
    "MandatoryFeatureUnsupported": 25,
    "NoManifestError": 26,
    "UnsupportedManifestError": 27,
    "KeyfileInvalidError": 40,
    "KeyfileMismatchError": 41,
    "KeyfileNotFoundError": 42,
    "RepoKeyNotFoundError": 44,
    "UnsupportedPayloadError": 48,
    "NoPassphraseFailure": 50,
    "PasscommandFailure": 51,
    "PassphraseWrong": 52,
    "PasswordRetriesExceeded": 53,
    "Cache.CacheInitAbortedError": 60,
    "Cache.EncryptionMethodMismatch": 61,
    "Cache.RepositoryAccessAborted": 62,
    "Cache.RepositoryIDNotUnique": 63,
    "Cache.RepositoryReplay": 64,
    "LockError": 70,
    "LockErrorT": 71,
    "LockFailed": 72,
    "LockTimeout": 73,
    "ConnectionClosed": 80,
    "ConnectionClosedWithHint": 81,
    "InvalidRPCMethod": 82,
    "PathNotAllowed": 83,
    "RemoteRepository.RPCServerOutdated": 84,
    "UnexpectedRPCDataFormatFromClient": 85,
    "UnexpectedRPCDataFormatFromServer": 86,
    "ConnectionBrokenWithHint": 87,
    "IntegrityError": 90,
    "FileIntegrityError": 91,
    "DecompressionError": 92,
    "ArchiveTAMInvalid": 95,
    "ArchiveTAMRequiredError": 96,
    "TAMInvalid": 97,
    "TAMRequiredError": 98,
    "TAMUnsupportedSuiteError": 99,
    "FileChangedWarning": 100,
    "IncludePatternNeverMatchedWarning": 101,
    "BackupError": 102,
    "BackupRaceConditionError": 103,
    "BackupOSError": 104,
    "BackupPermissionError": 105,
    "BackupIOError": 106,
    "BackupFileNotFoundError": 107,
}
# What a server's borg raises comes under its last name.
_SHORT = {name.rpartition(".")[2]: code for name, code in CODES.items()}
_NO_CONFIG = CODES["Repository.InvalidRepository"]
_OCCUPIED = (CODES["Repository.AlreadyExists"], CODES["Repository.PathAlreadyExists"])


@dataclass(frozen=True)
class Message:
    """A line of --log-json: level, borg's name for it (empty: none), what it says, and the part of borg that says it."""

    level: str
    name: str
    text: str
    logger: str = ""

    @property
    def meaning(self) -> Meaning | None:
        """What the table says of it; None for a line without a name that is known."""
        return None if self.code is None else meaning(ENGINE, self.code)

    @property
    def code(self) -> int | None:
        """The exit code that stands for it; None for a line without a name that is known."""
        return _SHORT.get(self.name.rpartition(".")[2])


def message(line: str) -> Message | None:
    """Return the message in one line of --log-json, None for another line."""
    if not line.startswith("{"):
        return None
    try:
        content = json.loads(line)
        if content["type"] != "log_message":
            return None
        return Message(
            str(content["levelname"]),
            str(content.get("msgid") or ""),
            str(content["message"]),
            str(content.get("name") or ""),
        )
    except (ValueError, KeyError, TypeError):
        return None


def messages(stderr: str) -> list[Message]:
    """Return all messages in `stderr`; other lines, such as those of ssh, become messages without level."""
    found = []
    for line in stderr.splitlines():
        parsed = message(line)
        if parsed is not None:
            found.append(parsed)
        elif line.strip() and not line.startswith("{"):
            found.append(Message("", "", line.strip()))
    return found


def host_id(machine_id: str = "/etc/machine-id") -> str | None:
    """Return the value of BORG_HOST_ID, by which borg knows locks of this host; None on a host without a machine id.

    Machine ids are meant to stay on their host, so it is a digest; and it does not follow the name or the network card.
    """
    try:
        with open(machine_id, encoding="ascii") as stream:
            text = stream.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if _MACHINE_ID.match(text) is None:
        return None
    return f"holdfast-{hashlib.sha256(b'holdfast borg host id' + text.encode('ascii')).hexdigest()[:16]}"


def served(path: str) -> str:
    """Return what root's borg calls the repository of an account, with the variables of `serve_as`.

    Always the same: borg remembers it, and the account may be another one tomorrow.
    """
    return f"ssh://{HOST}{path}"


def serve_as(user: str | int, group: str | int, binary: str) -> dict[str, str]:
    """Return the variables by which root's borg opens what an account owns: by `borg serve` as that account, as over SSH.

    Root's own borg makes a missing index anew, and would follow the link that the account put in the place of that file.
    This way it touches nothing there, and no secret reaches the account. A number as `user` needs no account of that id.
    """
    groups = "--init-groups" if isinstance(user, str) else "--clear-groups"
    # Borg adds the host, which so becomes the name of a variable that is not there. Whoever reaches into its process must not
    # reach the caller's terminal.
    command = f"setsid --wait setpriv --reset-env {groups} --regid={group} --reuid={user} env -u"
    return {"BORG_RSH": command, "BORG_REMOTE_PATH": binary}


def _other_owner(path: str | None) -> os.stat_result | None:
    """Return whose a local repository is where root would open what is not root's."""
    if path is None or os.geteuid() != 0:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found if found.st_uid != 0 else None


def key_hash(exported: str) -> str:
    """Return the SHA-256 of what `borg key export` printed: it changes with the key and with its passphrase."""
    return hashlib.sha256(exported.encode("ascii")).hexdigest()


def is_key(text: str, repository_id: str | None = None) -> bool:
    """Tell whether `text` has the form of an exported key (of the repository `repository_id`)."""
    match = _KEY.match(text)
    return match is not None and repository_id in (None, match.group(1))


def read_key(path: str) -> str | None:
    """Return the exported key at `path`, None if there is none. Raises EngineError for what is no key of root's."""
    with Tree() as tree:
        entry = tree.entry(path)
    if entry is None:
        return None
    text = entry.content.decode("ascii", "replace")
    if entry.kind != "file" or entry.uid not in (0, os.geteuid()) or not is_key(text):
        raise EngineError(f"{path} is no exported key of borg: restore it from the escrow, or remove it")
    return text


def _said(result: Result, secrets: Sequence[str]) -> str:
    """Return the line that says why a command failed; what the server or ssh said is nearer to the cause."""
    said = messages(result.stderr)
    remote = [each.text[len(_REMOTE) :] for each in said if each.text.startswith(_REMOTE)]
    errors = [each.text for each in said if each.level in ("ERROR", "CRITICAL")]
    plain = [each.text for each in said if not each.level]
    denied = [line for text in errors for line in text.splitlines() if _DENIED.search(line)]
    named = [each.text for each in said if each.meaning is not None and each.meaning.state != PRESENT]
    lines = (denied or remote[-1:] or named or errors or plain or ["no message"])[0].splitlines()
    return _scrub(lines[0] if lines else "no message", secrets)


def classify(result: Result, *, timeout: float = 0, secrets: Sequence[str] = ()) -> tuple[str, str | None]:
    """Return state and reason of a repository from what a command said that had to open it.

    The message id decides: every borg from 1.2 gives one, and the codes of 1.4 only repeat it. What cannot be told is
    `unreachable`: never `absent`, so that nobody initialises in doubt. A directory without a config file is empty or
    has lost it; borg's own `init` takes an empty one only, so for it that is `absent`.
    """
    if result.timed_out:
        return UNREACHABLE, f"no answer within {timeout:g} s"
    if meaning(ENGINE, result.code).outcome in (OK, INCOMPLETE):
        return PRESENT, None
    code = result.code
    for each in messages(result.stderr):
        if each.level in ("ERROR", "CRITICAL") and each.code is not None:
            code = each.code
            break
    known = meaning(ENGINE, code)
    if code == _NO_CONFIG:
        return ABSENT, "there is no config file: the directory is empty, or a repository lost it"
    said = _said(result, secrets)
    if known.state in (None, UNREACHABLE):
        cause = _causes.cause("\n".join(each.text for each in messages(result.stderr)))
        if cause is not None:
            return UNREACHABLE, cause.words
    if known.state is None or code in _OCCUPIED:
        return UNREACHABLE, "permission denied" if _DENIED.search(said) else said
    if known.state == UNREACHABLE:
        return UNREACHABLE, f"{known.words}: {said}"
    return known.state, known.words


class Borg:
    """borg on one repository. Reading commands take no lock and wait for none, so they also work while a backup runs.

    `timeout` is the time in seconds for everything that this object does. `rsh` is the command that reaches a server.
    The passphrase is handed over in memory (BORG_PASSPHRASE_FD), and so is the key of a keyfile repository; both also
    with `user`, the account that borg then runs as. Borg's questions are never answered.
    """

    def __init__(
        self,
        source: Source,
        *,
        binary: str,
        timeout: float,
        base_directory: str = BASE_DIRECTORY,
        rsh: str | None = None,
        key: str | None = None,
        user: str | None = None,
        runner: Callable[..., Result] = run,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._binary = binary
        self._timeout = timeout
        self._base_directory = base_directory
        self._rsh = rsh
        self._key = key
        self._user = user
        self._runner = runner
        self._clock = clock
        self._deadline = clock() + timeout
        self._owner = None if user is not None else _other_owner(source.path)

    @property
    def _location(self) -> str:
        path = self.source.path
        return self.source.location if self._owner is None or path is None else served(path)

    def environment(self) -> dict[str, str]:
        """Return borg's variables but for the secrets. Times are UTC, since borg prints them without a zone."""
        result = {
            **self.source.environment,
            "BORG_BASE_DIR": self._base_directory,
            "BORG_EXIT_CODES": "modern",
            "TZ": "UTC",
        }
        identity = host_id()
        if identity is not None:
            result["BORG_HOST_ID"] = identity
        if self._rsh is not None:
            result["BORG_RSH"] = self._rsh
        return result

    def _run(self, *arguments: str, key: bool = True, more: Mapping[str, str] | None = None) -> Result:
        files = {"BORG_KEY_FILE": self._key.encode("ascii")} if key and self._key is not None else {}
        variables = {**self.environment(), **(more or {})}
        with contextlib.ExitStack() as stack:
            if self._owner is not None:
                variables.update(serve_as(self._owner.st_uid, self._owner.st_gid, self._binary))
                # The base directory may belong to that account as well.
                variables["BORG_BASE_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-"))
            try:
                return self._runner(
                    [self._binary, "--log-json", *arguments],
                    environment=variables,
                    files=files,
                    descriptors={"BORG_PASSPHRASE_FD": self.source.password},
                    user=self._user,
                    timeout=max(0.1, self._deadline - self._clock()),
                )
            except OSError as error:
                raise EngineError(f"{self._binary} cannot be run: {error.strerror}") from None

    def _classify(self, result: Result) -> tuple[str, str | None]:
        """Return state and reason; for a local repository the directory is asked as well."""
        state, reason = classify(result, timeout=self._timeout, secrets=self.source.secrets)
        if state == ABSENT and self.source.path is not None:
            found = _keyless_borg.probe(self.source.path)
            if found.state is not None and found.state != PRESENT:
                return found.state, found.reason
        return state, reason

    def version(self) -> tuple[int, int, int]:
        """Return the version of the program; it opens nothing. Raises EngineError."""
        match = _VERSION.search(self._run("--version").stdout)
        if match is None:
            raise EngineError(f"{self._binary} does not tell its version: is it borg?")
        return int(match.group(1)), int(match.group(2)), int(match.group(3))

    def archives(self, *more: str) -> Result:
        """List archives. Opens the repository."""
        return self._run("list", "--bypass-lock", "--json", *more, self._location)

    def key_export(self) -> Result:
        """Print the key, encrypted with the passphrase as it lies in the repository or its key file."""
        return self._run("key", "export", self._location, "-")

    def init(self, encryption: str = ENCRYPTIONS[0]) -> Result:
        """Make the repository. Refuses by itself where anything is."""
        # Where a key file is named, borg would write the new key into it, and it is only in memory.
        return self._run("init", f"--encryption={encryption}", self._location, key=False)

    def change_passphrase(self, passphrase: bytes) -> tuple[Result, str | None]:
        """Encrypt the key with another passphrase; return the key of a keyfile repository as it is then.

        borg takes a new passphrase from its environment or a terminal only; only root and the account that it runs as can
        read that. It writes a key file anew, beside the old one, so this one gets a directory.
        """
        more = {"BORG_NEW_PASSPHRASE": passphrase.decode("utf-8").rstrip("\r\n")}
        arguments = ("key", "change-passphrase", self._location)
        if self._key is None:
            return self._run(*arguments, more=more), None
        owner = account(self._user) if self._user is not None else None
        with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
            # Opened while only root can change it, since the account could put something else in its place.
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                made = os.open("key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=opened)
                with os.fdopen(made, "w", encoding="ascii") as stream:
                    stream.write(self._key)
                    if owner is not None:
                        os.fchown(stream.fileno(), owner.pw_uid, owner.pw_gid)
                        os.fchown(opened, owner.pw_uid, owner.pw_gid)
                result = self._run(*arguments, key=False, more={**more, "BORG_KEY_FILE": f"{directory}/key"})
                descriptor = os.open("key", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
                with os.fdopen(descriptor, "rb") as changed:
                    text = changed.read(_KEY_BYTES).decode("ascii", "replace")
            finally:
                os.close(opened)
        if not is_key(text):
            raise EngineError("borg key change-passphrase did not leave a key")
        return result, text

    def look(self, *, key: bool = False) -> Look:
        """Return state, id and format, and with `key` the exported key and its hash."""
        result = self.archives("--last=1")
        state, reason = self._classify(result)
        if state != PRESENT:
            return Look(state, reason)
        repository_id = str(self._parse(result, "list").get("repository", {}).get("id"))
        if _ID.match(repository_id) is None:
            raise EngineError("borg list did not answer with an id")
        seen = Look(PRESENT, id=repository_id, format_version=1)
        if not key:
            return seen
        result = self.key_export()
        state, reason = self._classify(result)
        if state != PRESENT:
            return Look(state, reason)
        if not is_key(result.stdout, repository_id):
            raise EngineError("borg key export did not answer with the key of this repository")
        return replace(seen, key=key_hash(result.stdout), exported=result.stdout)

    def explain(self, result: Result) -> str:
        """Return in words, without secrets, why a command failed."""
        if result.timed_out:
            return f"no answer within {self._timeout:g} s"
        return _said(result, self.source.secrets)

    def leftovers(self, result: Result) -> str | None:
        """Return in words what kept `init` from making a repository where none can be opened, None if nothing did."""
        if any(each.code in _OCCUPIED for each in messages(result.stderr)):
            return "the directory is not empty, and has no config file"
        return None

    def _parse(self, result: Result, what: str) -> Mapping[str, Any]:
        try:
            value = json.loads(result.stdout)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise EngineError(f"borg {what} did not answer in JSON")
        return value

    def inspect(self, *, recorded: bool = False, size: bool = False, now: float) -> Repository:
        """Return everything that is to be known in two openings: one counts the archives, one reads the newest.

        With `size` a third one for a repository on a server, which brings borg's cache up to date first. `now` is in
        seconds since 1970. With `recorded` there has been a repository here, so one without a config file is
        damaged. Paths and bytes of an archive are null, since they would cost a synchronised cache.
        """
        result = self.archives()
        state, reason = self._classify(result)
        if state == ABSENT and recorded:
            state, reason = DAMAGED, f"the record says that a repository was here: {reason}"
        if state != PRESENT:
            return self._facts(Repository(self.source.public_location, ENGINE, state=state, reason=reason), size, now)
        content = self._parse(result, "list")
        count = len(content.get("archives") or [])
        about = content.get("repository") or {}
        repository = Repository(
            self.source.public_location,
            ENGINE,
            state=PRESENT,
            id=about.get("id"),
            format_version=1,
            snapshots=Snapshots(count),
            modified=_time(about.get("last_modified")),
        )
        if count:
            repository = self._newest(repository, now)
        if size and self.source.path is None:
            return self._totals(repository)
        return self._facts(repository, size, now)

    def _newest(self, repository: Repository, now: float) -> Repository:
        result = self.archives("--last=1", "--format={hostname}{username}{comment}{tam}")
        state, reason = self._classify(result)
        if state != PRESENT:
            return replace(repository, state=state, reason=reason)
        found = self._parse(result, "list").get("archives") or []
        if not found:
            return repository
        last = _snapshot(found[-1])
        repository = replace(
            repository, snapshots=replace(repository.snapshots, last=last), age_seconds=age(last.time, now)
        )
        if found[-1].get("tam") == "none":
            words = meaning(ENGINE, CODES["ArchiveTAMRequiredError"])
            return replace(repository, state=words.state, reason=words.words)
        return repository

    def _totals(self, repository: Repository) -> Repository:
        """Return `repository` with the bytes that its archives take up, and whether its key lies in it."""
        result = self._run("info", "--bypass-lock", "--json", self._location)
        try:
            said = json.loads(result.stdout)
            mode, stats = said["encryption"]["mode"], said["cache"].get("stats") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return repository
        return replace(repository, keys=1 if str(mode).startswith("repokey") else 0, size=stats.get("unique_csize"))

    def _facts(self, repository: Repository, size: bool, now: float) -> Repository:
        """Return `repository` with what the file system tells of a local one."""
        if self.source.path is None:
            return repository
        found = _keyless_borg.probe(self.source.path, size=size, now=now)
        return replace(repository, locks=found.locks, keys=found.keys, size=found.size)


def _time(text: Any) -> str | None:
    try:
        return format_time(parse_time(str(text)))
    except ValueError:
        return None


def _snapshot(entry: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        id=str(entry["id"]),
        time=format_time(parse_time(str(entry["time"]))),
        hostname=entry.get("hostname"),
        username=entry.get("username"),
        tags=tags_of(str(entry.get("comment") or "")),
    )


def tags_of(comment: str) -> list[str]:
    """Return the tags that a run unit put into an archive's comment: `holdfast,job:system,red`."""
    words = comment.split(",")
    return [word for word in words[1:] if word] if words[0] == "holdfast" else []
