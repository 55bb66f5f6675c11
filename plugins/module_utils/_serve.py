# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one command that a client's SSH key runs: serve one repository, in a clean environment.

This file is installed alone, as a program with the repository's name as its argument, and imports nothing of the
collection. The account is that of the process, never one from the environment. The definition, which root wrote,
says what is served; what the client asked for (SSH_ORIGINAL_COMMAND) is not looked at.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFINITIONS = "/etc/holdfast/serve"
HOME = "/var/lib/holdfast/home"
# _restic_layout.py, installed beside this file.
LAYOUT = "/usr/local/libexec/holdfast/restic-layout"
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME, "LC_ALL": "C.UTF-8"}
VERSION = 1
# Of one client at a time: each is some processes. sshd knows no such limit.
MOST_SESSIONS = 50
_ACCOUNT = re.compile(r"\Abk-[a-z][a-z0-9-]{0,27}\Z")
_REPOSITORY = re.compile(r"\A[a-z][a-z0-9-]{0,27}\Z")
_SFTP_SERVER = "/usr/lib/openssh/sftp-server"
# What sftp-server itself needs; the rest of the host's files cannot be opened.
_SFTP_READS = ("/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/passwd", "/etc/nsswitch.conf", "/dev/null")
# What a store says that no retry will change, and what that means to the client. Refused deletions are none of it: a store
# may forbid them altogether.
_FINAL = (
    ("the store's quota is used up", rb"QuotaExceeded|InsufficientStorage|StatusCode: 507"),
    ("the credentials for the store have expired", rb"ExpiredToken|TokenRefreshRequired|InvalidToken"),
    ("this server's clock and that of the store differ", rb"RequestTimeTooSkewed"),
    (
        "the store refuses this server's credentials",
        # An answer to HEAD has no name of the error in it; 400 is what expired credentials get.
        rb"InvalidAccessKeyId|SignatureDoesNotMatch|StatusCode: 40[13]|HeadObject, https response error StatusCode: 400",
    ),
)
# What is run before borg 1 is. It takes a session that begins with a create for one that makes a new repository, and forgets
# --append-only: where it finds that there is one already, it then obeys `destroy`, a call for which no client of an append-only
# repository has any use; where it makes one, that session could delete in it for as long as it lasts. And without a quota it would
# keep to the one that the repository was made with.
# Whoever begins to write deletes all segments above the last one that it took for committed, and an append-only session does it, too. A
# client can break borg's lock, ask for none, or ask for one that is only waited for after borg has looked: what others commit meanwhile
# would be gone. So one session writes at a time, by a lock that no client can break, and what was committed is looked for under it.
# Its quota stops those only who stop by themselves: it compares after it has written, and counts no index, no files and
# nothing that was never committed. So what a call will write is added to what is there and compared first. What a session that was
# cut off left is deleted, or counted, as soon as another one writes.
# The key is an option in the repository's configuration, where borg takes a carriage return for the end of a line.
_BORG = r"""
import contextlib, fcntl, functools, os, re, select, sys, time
from borg import archiver, remote, repository
from borg.locking import LockTimeout

server, Repository, LoggedIO = remote.RepositoryServer, repository.Repository, repository.LoggedIO
server.rpc_methods = tuple(name for name in server.rpc_methods if name != 'destroy')
opens, prepares, checks, closes = server.open, Repository.prepare_txn, Repository.check_transaction, Repository.close
looks, cleans, deletes = LoggedIO.get_segments_transaction_id, LoggedIO.cleanup, LoggedIO.delete_segment
# A file counts as much at least, for which ext4 has one inode by default; a commit makes up to three.
FILE = 16384
# What borg writes of an object besides its data, or to delete it; as much again is what it remembers of one that was replaced.
ENTRY = 41
# Seconds that a new session waits for one that writes: sshd knows after five minutes that the client was switched off.
WAIT = 400
writer = None
# Whether the client writes, and not borg an index that it needs to read.
writes = False
refused = False

@functools.wraps(opens)
def opened(self, *given, **named):
    found = opens(self, *given, **named)
    self.repository.append_only = self.repository.append_only or self.append_only
    self.repository.storage_quota = self.storage_quota or 0
    self.repository.begun = self.repository.io.get_segments_transaction_id()
    return found

def use(path):
    found = 0
    for place, folders, files in os.walk(path):
        for name in folders + files:
            with contextlib.suppress(FileNotFoundError):
                size = max(FILE, os.lstat(os.path.join(place, name)).st_size)
                # A commit writes another one beside it.
                found += 2 * size if name.startswith('hints.') else size
    return found

def behind(here):
    return here.get_index_transaction_id() != here.io.get_segments_transaction_id()

def write_alone(here, reads=False):
    global writer, refused
    # borg replaces its files.
    wanted = os.open(here.path, os.O_RDONLY | os.O_DIRECTORY)
    client = select.poll()
    client.register(0, 0)
    limit = time.monotonic() + WAIT
    # Once for all that the client has asked for meanwhile, and no longer than it is there.
    while not refused and not (reads and not behind(here)):
        try:
            fcntl.flock(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused = time.monotonic() > limit or bool(client.poll(1000))
            continue
        # Who wrote until now has committed: what this client and borg have read of the repository is not true any more.
        refused = not reads and here.begun != here.io.get_segments_transaction_id()
        if not refused:
            writer = wanted
            return
    os.close(wanted)
    if refused:
        raise LockTimeout(here.path)

def let_go():
    global writer
    if writer:
        os.close(writer)
    writer = None

def begin(here):
    global writes
    # An old client asks for no kind of lock. While it waits for this one, others write.
    if here.exclusive is None and here.lock and not here.lock.got_exclusive_lock():
        here.lock.upgrade()
    if not writer:
        write_alone(here)
        if here._active_txn:
            here.rollback()
    writes = True

def closed(self):
    # Before borg lets go of its own lock: the next session may begin then.
    let_go()
    closes(self)

# Whoever has committed writes the index next. Where nobody is there to do that, this session does.
def checked(self):
    while not writer and behind(self):
        write_alone(self, reads=True)
        if writer:
            self.index = None
    if writer:
        checks(self)

# A transaction begins: what an earlier one left is gone afterwards.
def prepared(self, *given, **named):
    if not writer:
        write_alone(self)
    try:
        prepares(self, *given, **named)
    except BaseException:
        # borg takes it for one that has begun.
        self.rollback()
        raise
    if self.storage_quota:
        self.taken = use(self.path) - FILE * self.io.segment

# A segment that was deleted meanwhile, and written anew by somebody else, is not the one that is open here.
def looked(self):
    # borg's own `clear` forgets half of it.
    for segment, _opened in list(self.fds.items()):
        del self.fds[segment]
    return looks(self)

# What was committed stays, whatever else a client brought borg to believe.
def cleaned(self, transaction_id):
    self.kept = self.get_segments_transaction_id()
    if not writer or transaction_id != self.kept:
        raise LockTimeout(self.path)
    cleans(self, transaction_id)

def emptied(self, segment):
    if segment <= self.kept:
        raise ValueError(f'segment {segment} is committed')
    name = self.segment_filename(segment)
    # A session that reads may have it open, and would keep its space. A copy of the administrator's stays what it is. What cannot
    # be emptied is deleted all the same, or borg says why not.
    with contextlib.suppress(OSError):
        if os.lstat(name).st_nlink == 1:
            os.truncate(name, 0)
    deletes(self, segment)

def bounded(name):
    call = getattr(Repository, name)

    @functools.wraps(call)
    def within(self, **named):
        here = self.repository
        begin(here)
        if not here._active_txn:
            here.prepare_txn(here.get_transaction_id())
        if here.storage_quota:
            here.taken += len(named.get('data', b'')) + 3 * ENTRY
            # The old index stays until the new one is there.
            needed = here.taken + FILE * (here.io.segment + 3) + here.index.size()
            if needed > here.storage_quota:
                sizes = map(repository.format_file_size, (here.storage_quota, needed))
                here.transaction_doomed = here.StorageQuotaExceeded(*sizes)
                # Of a doomed transaction borg's own commit says that, and rolls it back.
                if name != 'commit':
                    raise here.transaction_doomed
        return call(here, **named)

    setattr(server, name, within)

def reading(name):
    call = getattr(Repository, name)

    @functools.wraps(call)
    def within(self, **named):
        here = self.repository
        began = here._active_txn
        try:
            return call(here, **named)
        finally:
            # What had to be written for it is written. Who reads may do so for days, and holds up nobody.
            if not began and here._active_txn:
                here.rollback()
            if not writes and writer:
                # What was known before stays, and with it whoever writes by it is refused.
                with contextlib.suppress(OSError):
                    here.begun = here.io.get_segments_transaction_id()
                let_go()

    setattr(server, name, within)

def save_key(self, keydata):
    if not re.fullmatch(rb'[A-Za-z0-9+/=\n]{0,8192}', keydata):
        raise ValueError('this is no key of borg')
    # borg overwrites the old configuration with random bytes: that of two who replace it at a time may be the new one.
    begin(self.repository)
    return self.repository.save_key(keydata)

server.open, server.save_key = opened, save_key
Repository.prepare_txn, Repository.check_transaction, Repository.close = prepared, checked, closed
LoggedIO.get_segments_transaction_id, LoggedIO.cleanup, LoggedIO.delete_segment = looked, cleaned, emptied
# Nothing is deleted but by cleanup.
LoggedIO.kept = float('inf')
for name in ('put', 'delete', 'commit'):
    bounded(name)
for name in ('__len__', 'check', 'get', 'list', 'scan'):
    reading(name)
del sys.argv[0]
sys.exit(archiver.main())
"""
# What rclone is told anyway, what would let clients delete or somebody else in, and what its log is read by. The last one counts
# for it, so that one more would undo a promise. Several short options may be one word. An option of a type, like --s3-acl, beats
# what the file of the remote says, where access lists, addresses and commands were judged; and a header may be an access list, too.
_OWN_OPTIONS = re.compile(
    r"\A(?:-(?!-).*|--|--(?:addr|allow-origin|append-only|ask-password|baseurl|cert|client-ca|config|dry-run|dump|dump-bodies|dump-headers"
    r"|(?:azureblob|b2|ftp|gcs|s3|sftp|smb|swift|webdav)-.*|header|header-upload|header-download|help|htpasswd|interactive|key"
    r"|log-.*|metrics-.*|pass|password-command|private-repos|progress|quiet|rc|rc-.*|realm|salt|stdio|syslog|syslog-.*|use-json-log|user"
    r"|user-from-header|verbose|version)(?:=.*)?)\Z",
    re.DOTALL,
)
_INTERPRETER = re.compile(rb"\A#! *(/[^ \n]*/python3?(?:\.[0-9]+)?) *\n")
# The first line of a message of rclone's; what follows it may be anything, a request with its headers too.
_LOGGED = re.compile(rb"\A[0-9/]+ [0-9:.]+ ([A-Z]+) *: ")
_UNIMPORTANT = (b"DEBUG", b"INFO")
# Where a store is, and in an URL also what opens it.
_PLACE = re.compile(
    rb"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"']+|\b[0-9]+(?:\.[0-9]+){3}\b(?::[0-9]+)?|\[[0-9a-f:]+(?:%\w+)?\](?::[0-9]+)?"
)
_HIDDEN = b"***"
# A shorter value is no secret, and could be a part of what the client has to know, such as a status.
_SHORTEST = 4
# sysexits.h
USAGE, CONFIG, NO_PERMISSION, TRY_AGAIN = 64, 78, 77, 75


class RefusedError(Exception):
    """This repository is not served now; `code` is the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Command:
    """What is executed, where, and the only directory it may touch (None: its account is all that confines it)."""

    argv: tuple[str, ...]
    directory: str = "/"
    confine: str | None = None
    must_confine: bool = True
    # What stands between the session and its standard input, and reads along.
    before: tuple[str, ...] = ()
    # With a store behind it, its log is read for what that will go on saying: the file whose values no client is to see in it.
    watch: str = ""


def read_definition(account: str, repository: str, directory: str = DEFINITIONS) -> dict[str, Any]:
    """Return the definition that root wrote. Raises RefusedError."""
    if not _ACCOUNT.match(account):
        raise RefusedError(NO_PERMISSION, f"the account {account!r} serves no repositories")
    if not _REPOSITORY.match(repository):
        raise RefusedError(USAGE, f"{repository!r} is not the name of a repository")
    name = f"{account[3:]}--{repository}"
    for flag in (name, "all"):
        if os.path.lexists(f"{directory}/maintenance/{flag}"):
            raise RefusedError(TRY_AGAIN, f"{name} is in maintenance: try again later")
    path = f"{directory}/{account}/{repository}.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise RefusedError(NO_PERMISSION, f"{name} is not served here") from None
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        info = os.fstat(stream.fileno())
        if info.st_uid != 0 or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedError(CONFIG, f"{path} can be written by others than root: chown root and chmod go-w it")
        try:
            value = json.load(stream)
        except ValueError:
            value = None
    if not isinstance(value, dict) or value.get("version") != VERSION or value.get("name") != name:
        raise RefusedError(CONFIG, f"{path} is not the definition of {name}: run the playbook again")
    return value


def sessions(account: str, proc: str = "/proc") -> int:
    """Return how many connections this account has, of which each may have one session, and one is ours."""
    # A limit of its processes would count those of containers, which share UIDs with the host, and threads.
    title = re.compile(rb"sshd(?:-session)?: %s(?:@.*)?" % re.escape(account.encode()))
    found = 0
    for entry in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(f"{proc}/{entry}/cmdline", "rb") as stream:
                if not title.fullmatch(stream.read(256).rstrip(b"\0 ")):
                    continue
            # Anybody may call a process by that name.
            with open(f"{proc}/{entry}/status", encoding="utf-8", errors="replace") as stream:
                found += f"\nUid:\t{os.getuid()}\t" in stream.read()
        except OSError:
            continue  # it ended
    return found


def command(definition: Mapping[str, Any]) -> Command:
    """Return what serves the repository of a definition. Raises RefusedError."""
    kinds = {"rclone": _rclone, "borg": _borg, "sftp": _sftp}
    kind = definition.get("kind")
    if kind not in kinds:
        raise RefusedError(CONFIG, f"{definition['name']}: {kind!r} is no kind of repository: run the playbook again")
    path = definition.get("path")
    if path is not None and not os.path.isdir(path):
        raise RefusedError(CONFIG, f"{definition['name']}: the directory {path} is not there: is its disk mounted?")
    return kinds[kind](definition)


def sets_itself(argument: str) -> bool:
    """Tell whether an argument of rclone's is not for its user to give."""
    return _OWN_OPTIONS.match(argument) is not None


def _rclone(definition: Mapping[str, Any]) -> Command:
    for argument in filter(sets_itself, definition["arguments"]):
        wrong = f"{argument!r} is not for ssh_access_rclone_arguments to say: run the playbook without it"
        raise RefusedError(CONFIG, f"{definition['name']}: {wrong}")
    # Without the slash rclone looks whether the path is a file, and where a store's error keeps it from seeing that it is none,
    # it serves the directory above: the repositories of all clients.
    target = definition["remote"].rstrip("/") + "/" if definition["remote"] else definition["path"]
    argv = [definition["program"] or "/usr/bin/rclone", "serve", "restic"]
    argv += ["--stats", "0", "--low-level-retries", "3"] if definition["remote"] else []
    config = definition["config"] or "/dev/null"
    # First of all what may have no value: it takes the next word, and rclone has one path too many.
    argv += [*definition["arguments"], "--config", config, "--stdio"]
    argv += ["--append-only"] if definition["append_only"] else []
    # Why a store refuses to be asked for an object is said in the debug log only.
    argv += ["--log-level", "DEBUG"] if definition["remote"] else []
    argv.append(target)
    # rclone itself takes any name below what it serves, and writes to a directory without a thought of power failures.
    before = (LAYOUT, definition["name"], *([] if definition["remote"] else [target]))
    return Command(tuple(argv), before=before, watch=config if definition["remote"] else "")


def _borg(definition: Mapping[str, Any]) -> Command:
    argv = [definition["program"] or "/usr/bin/borg", "serve"]
    if definition["append_only"] and definition["borg_major"] < 2:
        argv = [_interpreter(definition["name"], argv[0]), "-I", "-c", _BORG, *argv, "--append-only"]
    elif definition["append_only"]:
        # borg 2 has permissions instead.
        argv += ["--permissions", "no-delete"]
    argv += ["--restrict-to-repository", definition["path"]]
    argv += ["--storage-quota", str(definition["quota"])] if definition["quota"] else []
    # Clients write ssh://host/./name, which borg takes from where it was started.
    return Command((*argv, *definition["arguments"]), directory=os.path.dirname(definition["path"]))


def interpreter(program: str) -> str:
    """Return the Python that a program's first line names, empty where it names none. Raises OSError."""
    with open(program, "rb") as stream:
        found = _INTERPRETER.match(stream.readline(256))
    return os.fsdecode(found[1]) if found else ""


def _interpreter(name: str, program: str) -> str:
    """Return the Python that runs borg. Raises RefusedError."""
    try:
        found = interpreter(program)
    except OSError as error:
        raise RefusedError(CONFIG, f"{name}: {program}: {error.strerror}") from None
    if not found:
        words = "is no Python program, which could not be kept from destroying a repository: install borg as a package"
        raise RefusedError(CONFIG, f"{name}: {program} {words}")
    return found


def _sftp(definition: Mapping[str, Any]) -> Command:
    # Landlock sees what is opened. Of what is changed by its name restic needs `setstat` alone, which is judged before.
    path = definition["path"]
    argv = (_SFTP_SERVER, "-u", "0077", "-P", "symlink,hardlink,lsetstat", "-d", path)
    before = (LAYOUT, definition["name"], path, "sftp")
    return Command(argv, confine=path, must_confine=definition["confine"] == "required", before=before)


def landlock(directory: str, reads: Sequence[str] = _SFTP_READS) -> None:
    """Let this process and its children open files below `directory` and what they need to run, and nothing else.

    Raises OSError where the kernel cannot.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: Any) -> int:
        result: int = libc.syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result

    # Numbers and bits are those of linux/landlock.h, the same on every architecture.
    create, add, restrict, version_flag, path_beneath, no_new_privileges = 444, 445, 446, 1, 1, 38
    version = call(create, None, ctypes.c_size_t(0), ctypes.c_uint32(version_flag))
    execute, write_file, read_file, read_directory = 1 << 0, 1 << 1, 1 << 2, 1 << 3
    # 13 rights of the first version, then refer (2), truncate (3) and ioctl of devices (5).
    handled = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    special = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12  # devices, sockets, pipes and links are not made
    everything = handled & ~special & ~execute
    attributes = [
        handled,
        3 if version >= 4 else 0,
        3 if version >= 6 else 0,
    ]  # no TCP, no signals, no abstract sockets
    size = 8 * (3 if version >= 6 else 2 if version >= 4 else 1)
    ruleset = call(create, (ctypes.c_uint64 * 3)(*attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))

    rules = [(directory, everything)]
    rules += [(path, execute | read_file | read_directory) for path in reads]
    rules += [("/dev/null", read_file | write_file)]
    for path, allowed in rules:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rights = allowed if os.path.isdir(path) else allowed & (execute | write_file | read_file)
        rule = struct.pack("=Qi", rights, descriptor)
        call(add, ctypes.c_int(ruleset), ctypes.c_int(path_beneath), rule, ctypes.c_uint32(0))
        os.close(descriptor)
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    call(restrict, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def stand_before(program: Sequence[str]) -> None:
    """Start what reads along: this process, and what it becomes, reads what that passes on."""
    import subprocess  # only here: most of what is served needs none

    # pylint: disable-next=ansible-bad-function,consider-using-with # no AnsibleModule here; it ends with the session
    process = subprocess.Popen(list(program), stdout=subprocess.PIPE, env=ENVIRONMENT)
    if process.stdout:
        os.dup2(process.stdout.fileno(), 0)
        process.stdout.close()


def final(line: bytes) -> str | None:
    """Return why a store will not be of use until somebody acts, if a line of rclone's log says so."""
    if b"Delete request" in line or b"DeleteObject" in line:
        return None
    if b"deserialization failed" in line:
        # The connection broke before the store had said why: its next answer will say it.
        return None
    return next((words for words, pattern in _FINAL if re.search(pattern, line)), None)


def hidden(path: str) -> list[bytes]:
    """Return what no client is to see of a remote's file, longest first: its values, the parts of an URL in one, and its host."""
    from urllib.parse import unquote_to_bytes  # only here: most of what is served needs none

    try:
        with open(path, "rb") as stream:
            lines = stream.read().splitlines()
    except OSError:
        # rclone will say so.
        return []
    found: set[bytes] = set()
    for line in lines:
        key, _equals, value = line.partition(b" = ")
        value = value.strip(b" `")
        if key == b"type":
            continue
        parts = [part.partition(b"=")[2] for part in re.split(rb"[?&;]", value)]
        host = re.split(rb"[/:?]", value.rpartition(b"://")[2])[0]
        found |= {value, host, *parts, *map(unquote_to_bytes, parts)}
    return sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)


def shown(line: bytes, values: Sequence[bytes]) -> bytes:
    """Return a line of rclone's log as a client may see it."""
    line = _PLACE.sub(_HIDDEN, line)
    for value in values:
        line = line.replace(value, _HIDDEN)
    return line


def watch(wanted: Command, name: str) -> None:
    """Run rclone behind what reads along, and end as it ends, or as what reads along does where that refuses. Raises RefusedError.

    Where a store is behind it, pass on what rclone has to say, without what no client is to know of that, and end it when the
    store refuses for good: restic would try again for a quarter of an hour, and then only know of a status 500.
    """
    import subprocess  # only here: most of what is served needs none

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    values = hidden(wanted.watch) if wanted.watch else []
    # pylint: disable-next=ansible-bad-function,consider-using-with # no AnsibleModule here; it is ended below
    before = subprocess.Popen(list(wanted.before), stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        # pylint: disable-next=ansible-bad-function # no AnsibleModule here
        with subprocess.Popen(
            list(wanted.argv), stdin=before.stdout, stderr=subprocess.PIPE if wanted.watch else None, env=ENVIRONMENT
        ) as process:
            if before.stdout:
                # Else rclone would never see the session's end, nor the other one rclone's.
                before.stdout.close()
            try:
                for line in process.stderr or ():
                    reason, logged = final(line), _LOGGED.match(line)
                    if reason is not None:
                        process.kill()
                        said = shown(line, values).decode(errors="replace").strip()[-200:] if logged else ""
                        raise RefusedError(TRY_AGAIN, f"{name}: {reason}{': ' if said else ''}{said}")
                    if logged and logged[1] not in _UNIMPORTANT:
                        sys.stderr.buffer.write(shown(line, values))
                        sys.stderr.flush()
                process.wait()
            except SystemExit:
                process.terminate()
                raise
    finally:
        # It waits for the client where rclone ended first. Where it has refused, its exit code is known already.
        before.terminate()
        before.wait()
    ended = before.returncode if before.returncode not in (0, -signal.SIGTERM) else process.returncode
    raise SystemExit(ended if ended >= 0 else 128 - ended)


def serve(arguments: Sequence[str]) -> None:
    """Become the command of a repository. Raises RefusedError."""
    if len(arguments) != 1:
        raise RefusedError(USAGE, "one argument is needed, the name of a repository")
    account = pwd.getpwuid(os.getuid()).pw_name
    definition = read_definition(account, arguments[0])
    if sessions(account) > MOST_SESSIONS:
        many = f"this client has {MOST_SESSIONS} sessions here already: let fewer of its units begin at a time"
        raise RefusedError(TRY_AGAIN, f"{definition['name']}: {many}")
    wanted = command(definition)
    os.umask(0o077)
    # Python ignores it, and what we start would, too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.chdir(wanted.directory)
        os.closerange(3, 256)
        if wanted.confine is not None:
            # First: what is confined could not open it.
            stand_before(wanted.before)
            try:
                landlock(wanted.confine)
            except OSError as error:
                if wanted.must_confine:
                    raise RefusedError(
                        CONFIG,
                        f"{definition['name']}: this server's kernel cannot confine sftp to one directory "
                        f"({error.strerror}): enable Landlock, or set ssh_access_sftp_confine to if_possible",
                    ) from None
        elif wanted.before:
            watch(wanted, str(definition["name"]))
        os.execve(wanted.argv[0], wanted.argv, ENVIRONMENT)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        program = error.filename or wanted.argv[0]
        raise RefusedError(CONFIG, f"{definition['name']}: {program}: {error.strerror}") from None


def main() -> None:
    """Serve, or say in one line why not."""
    try:
        serve(sys.argv[1:])
    except RefusedError as error:
        sys.stderr.write(f"holdfast: {error}\n")
        raise SystemExit(error.code) from None


if __name__ == "__main__":
    main()
