# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Borg for people on the host, and what borg and borgmatic say in the journal."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from .. import _borg, _causes, _record
from .._outcome import meaning
from .._run import Result
from .definition import Definition
from .host import RUNTIME, Done, Host, ProgramError
from .journal import Digest

QUESTION_TIMEOUT = 600
# While a unit stops, which is given 90 s.
ID_TIMEOUT = 60
BREAK_TIMEOUT = 240
# Root's own: what root wrote into the account's directory its runs could not read any more.
BASE_DIRECTORY = "/var/lib/holdfast/borg-root"
LOCATIONS = 4096

_ARCHIVE = re.compile(r"\A(?P<host>.+)--[a-z0-9-]+?--\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:\.[a-z0-9-]+)?\Z")
# The same for the names of one job: borg's patterns know neither digits nor alternatives.
_OF_JOB = "*--{job}--????-??-??T??:??:??.??????*"
# Borg's exit codes, and the reason of the outcome.
_REASONS = {
    **dict.fromkeys((13, 15), "no repository"),
    **dict.fromkeys((14, 20), "disk full"),
    **dict.fromkeys((40, 41, 42, 44, 50, 51, 52, 53), "wrong password"),
    **dict.fromkeys((70, 71, 72, 73), "locked"),
    **dict.fromkeys((62, 80, 81, 82, 83, 84, 85, 86, 87), "unreachable"),
}
_MISSING = "BackupFileNotFoundError"
# Who warns of what is to be saved, and not always by a name: of an attribute, say, or of an unknown type of file.
_SAVING = ("borg.archiver", "borg.xattr")
# What it says of itself before it begins, where it was built without a compiler.
_SLOW = "Using a pure-python msgpack!"


def understand(digest: Digest, text: str) -> bool:
    """Sort a line of borg's --log-json, or borgmatic's summary, into `digest`. Returns whether it was one."""
    said = _borg.message(text)
    if said is not None:
        _sort(digest, said)
        return True
    if text.startswith('[{"archive"'):
        summary = _summary(text)
        if summary is not None:
            digest.summary = summary
            return True
    return False


def _sort(digest: Digest, said: _borg.Message) -> None:
    code = said.code
    first = said.text.splitlines()[0] if said.text else ""
    unnamed = code is None and said.level == "WARNING" and said.logger in _SAVING and not first.startswith(_SLOW)
    if unnamed or (code is not None and meaning(_borg.ENGINE, code).outcome == "incomplete"):
        if first not in digest.errors:
            digest.errors.append(first)
            digest.missing += said.name == _MISSING
    elif code is not None and said.level in ("ERROR", "CRITICAL"):
        digest.fatal = digest.fatal or f"{meaning(_borg.ENGINE, code).words}: {first}"
        digest.reason = digest.reason or _REASONS.get(code)
    elif first:
        digest.lines.append(first)


def created(lines: Sequence[str]) -> tuple[range, dict[str, Any]] | None:
    """What `borg create --json` says of an archive, and where among lines of its command's; None if it is not there."""
    if "{" not in lines or "}" not in lines:
        return None
    # Only its first and last line are a brace alone; the command may have said the like before.
    end = len(lines) - list(lines)[::-1].index("}")
    begin = max((number for number in range(end) if lines[number] == "{"), default=end)
    where = range(begin, end)
    summary = _summary("[" + "\n".join(lines[number] for number in where) + "]")
    return None if summary is None else (where, summary)


def _summary(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)[0]
        archive = content["archive"]
        stats = archive["stats"]
        return {
            "snapshot_id": str(archive["id"]),
            "archive": str(archive["name"]),
            "repository_id": str(content["repository"]["id"]),
            "total_files_processed": int(stats["nfiles"]),
            "total_bytes_processed": int(stats["original_size"]),
            "data_added": int(stats["deduplicated_size"]),
            "total_duration": float(archive["duration"]),
        }
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def write_environment(host: Host) -> None:
    """What the units of borg's jobs load: only the host itself knows its id."""
    identity = _borg.host_id()
    text = "" if identity is None else f"BORG_HOST_ID={identity}\n"
    host.write(f"{RUNTIME}/borg.environment", text.encode("ascii"), mode=0o644)


def environment(host: Host, definition: Definition) -> dict[str, str]:
    """Borg's environment for root. The passphrase stays in its file, which a command of borg's reads."""
    borg = definition.borg
    if borg is None:
        raise ProgramError(f"{definition.unit} is no job of borg; run the site playbook for this host")
    result = {
        **definition.environment,
        "BORG_BASE_DIR": BASE_DIRECTORY,
        "BORG_EXIT_CODES": "modern",
        "BORG_PASSCOMMAND": f"cat {definition.password_file}",
        "HOME": "/root",
        "TZ": "UTC",
    }
    identity = _borg.host_id()
    if identity is not None:
        result["BORG_HOST_ID"] = identity
    if definition.access == "local":
        result.update(_borg.serve_as(definition.user, definition.user, borg.binary))
    elif borg.ssh_command is not None:
        result["BORG_RSH"] = borg.ssh_command
    if borg.encryption == "keyfile-blake2":
        result["BORG_KEY_FILE"] = borg.key_file
    return result


def location(host: Host, definition: Definition) -> str:
    """Where the repository is. Raises ProgramError when the file that says so cannot be read."""
    path = definition.repository_file
    try:
        text = host.path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ProgramError(f"{path} cannot be used: {error}; run the site playbook for this host") from error
    if not text or len(text) > LOCATIONS or "\n" in text:
        raise ProgramError(f"{path} holds no location; run the site playbook for this host")
    return text


def _reached(host: Host, definition: Definition) -> str:
    """What root's borg calls the repository."""
    place = location(host, definition)
    return _borg.served(place) if definition.access == "local" else place


def failure(status: int, stderr: str = "") -> str:
    """What an exit status of borg, and what it said, mean to a person."""
    cause = _causes.cause("\n".join(each.text for each in _borg.messages(stderr)))
    if cause is not None:
        return cause.words
    if not stderr.strip():
        return meaning(_borg.ENGINE, status).words
    _state, reason = _borg.classify(Result(status, "", stderr))
    return reason or meaning(_borg.ENGINE, status).words


def snapshots(host: Host, definition: Definition) -> list[dict[str, Any]]:
    """The archives of the job, oldest first, in the form that `holdfast snapshots --json` prints."""
    done = _list(host, definition, "--format={hostname}{username}{comment}", timeout=QUESTION_TIMEOUT)
    if done.status:
        raise ProgramError(f"the snapshots of {definition.unit} cannot be read: {failure(done.status, done.stderr)}")
    try:
        found = [_snapshot(each) for each in json.loads(done.stdout)["archives"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"borg's list of archives cannot be read: {error}") from error
    return [each for each in found if definition.job_tag in each["tags"]]


def repository_id(host: Host, definition: Definition) -> str:
    """The id of the repository at the job's location. Raises ProgramError if it cannot be opened."""
    done = _list(host, definition, "--last=1", timeout=ID_TIMEOUT)
    if done.status:
        raise ProgramError(failure(done.status, done.stderr))
    try:
        return str(json.loads(done.stdout)["repository"]["id"])
    except (ValueError, KeyError, TypeError):
        raise ProgramError("borg's answer cannot be read") from None


def size_of(host: Host, definition: Definition, archive: str) -> int:
    """Bytes of the files in an archive that has just been made, of few. Raises ProgramError if it cannot be read."""
    argv = [_program(definition), "--log-json", "list", "--bypass-lock", "--json-lines", "--format={size}"]
    # Who made it judged that by what the account knows. Root has a memory of its own, which may be of another place.
    env = {**environment(host, definition), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
    done = host.command([*argv, f"{_reached(host, definition)}::{archive}"], timeout=ID_TIMEOUT, env=env)
    if done.status:
        raise ProgramError(failure(done.status, done.stderr))
    try:
        return sum(int(json.loads(line)["size"]) for line in done.stdout.splitlines())
    except (ValueError, KeyError, TypeError):
        raise ProgramError("borg's answer cannot be read") from None


def _list(host: Host, definition: Definition, more: str, *, timeout: float) -> Done:
    argv = [_program(definition), "--log-json", "list", "--bypass-lock", "--json", more]
    env = environment(host, definition)
    return host.command([*argv, _reached(host, definition)], timeout=timeout, env=env)


def _program(definition: Definition) -> str:
    return definition.borg.binary if definition.borg is not None else "borg"


def _snapshot(content: dict[str, Any]) -> dict[str, Any]:
    name = str(content["name"])
    match = _ARCHIVE.match(name)
    tags = _borg.tags_of(str(content.get("comment") or ""))
    return {
        "id": str(content["id"]),
        "name": name,
        # Borg prints no zone, and TZ makes it UTC.
        "time": f"{str(content['time']).partition('.')[0]}Z",
        "hostname": match["host"] if match else content.get("hostname"),
        "username": content.get("username"),
        "tags": tags,
        "dump": next((tag[len("dump:") :] for tag in tags if tag.startswith("dump:")), None),
        "paths": [],
        "total_bytes": None,
    }


def extract(
    host: Host, definition: Definition, archive: str, paths: list[str], kept: Sequence[str] = (), *, dry_run: bool
) -> tuple[list[str], dict[str, str]]:
    """The command that extracts into the current directory as root, all but what is `kept`, and its environment.

    Paths are taken literally: pp: is a prefix of whole components, and borg's paths have no leading slash. It warns of a path
    that matches nothing (of a pattern it does not).
    """
    argv = [_program(definition), "extract", "--bypass-lock", "--sparse", "--numeric-ids"]
    argv += ["--dry-run"] if dry_run else []
    argv += [f"--exclude=pp:{path.lstrip('/')}" for path in kept]
    wanted = [f"pp:{path.lstrip('/')}" for path in paths]
    return [*argv, "--", f"{_reached(host, definition)}::{archive}", *wanted], environment(host, definition)


def mount(host: Host, definition: Definition, mountpoint: str) -> tuple[list[str], dict[str, str]]:
    """The command that mounts the job's archives as root until it is ended, and its environment."""
    # Borg chooses by name alone; the job's dumps are among them.
    chosen = f"--glob-archives={_OF_JOB.format(job=definition.job)}"
    argv = [_program(definition), "mount", "--foreground", "--bypass-lock", "--numeric-ids", chosen]
    return [*argv, "--", _reached(host, definition), mountpoint], environment(host, definition)


def break_lock(host: Host, definition: Definition) -> None:
    """Break every lock of the repository, whoever holds it, and that of the account's cache. Raises ProgramError.

    What the account can write is left to the account: it may put a link in the place of a lock, and root would empty what
    that leads to.
    """
    argv = [_program(definition), "--log-json", "break-lock", "--", location(host, definition)]
    # It opens no key.
    dropped = ("HOME", "BORG_PASSCOMMAND", "BORG_KEY_FILE")
    env = {name: value for name, value in environment(host, definition).items() if name not in dropped}
    if definition.access == "local":
        env["BORG_BASE_DIR"] = _borg.BASE_DIRECTORY
        done = host.command(argv, timeout=BREAK_TIMEOUT, env=env, user=definition.user)
    else:
        # Only root can read the key that SSH takes, so the cache is one of root's.
        done = host.command(argv, timeout=BREAK_TIMEOUT, env=env)
        if done.status == 0:
            cache = f"{_borg.BASE_DIRECTORY}/.cache/borg/{_id_on_record(host, definition)}"
            locks = [f"{cache}/lock.{kind}" for kind in ("exclusive", "roster")]
            done = host.command(["rm", "-rf", "--", *locks], timeout=BREAK_TIMEOUT, user=definition.user)
    if done.status:
        why = failure(done.status, done.stderr)
        if definition.access == "local" and why == "permission denied":
            place = shlex.quote(location(host, definition))
            why += f"; give back what root wrote there: chown -R --reference={place} {place}"
        raise ProgramError(f"{definition.unit} cannot be unlocked: {why}")


def _id_on_record(host: Host, definition: Definition) -> str:
    try:
        return _record.parse(host.path(definition.record).read_text(encoding="ascii")).id
    except (OSError, ValueError) as error:
        raise ProgramError(f"{definition.record} cannot be used: {error}; run the site playbook") from error


def can_mount(host: Host, definition: Definition) -> bool:
    """Whether borg found a binding to FUSE, which it needs beside the kernel's part."""
    done = host.command([_program(definition), "debug", "info"], timeout=QUESTION_TIMEOUT)
    return re.search(r"\bfuse: None\b", done.stdout) is None


def listed(text: str) -> str | None:
    """The path in a line of what borg's dry run would save, empty if it would not; None for a line of something else."""
    if not text.startswith('{"type": "file_status"'):
        return None
    try:
        content = json.loads(text)
        # What is excluded, or cannot be read, has a letter.
        return str(content["path"]) if content["status"] == "-" else ""
    except (ValueError, KeyError, TypeError):
        return None
