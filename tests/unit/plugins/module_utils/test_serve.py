# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a key of a client starts, and what it is refused. That it holds on a real server is tested in tests/attack."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _rclone, _serve
from ansible_collections.holdfast.backup.plugins.module_utils._serve import RefusedError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="definitions belong to root: needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as path:
        (Path(path) / "bk-web1").mkdir()
        (Path(path) / "maintenance").mkdir()
        yield Path(path)


def definition(**more: Any) -> dict[str, Any]:
    return {
        "version": 1, "name": "web1--vault", "kind": "rclone", "path": "/srv", "remote": None, "config": None, "program": None,
        "quota": None, "append_only": True, "borg_major": 1, "arguments": [], "confine": "required", **more,
    }  # fmt: skip


def write(place: Path, value: Any, name: str = "vault") -> Path:
    path = place / "bk-web1" / f"{name}.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(0o640)
    return path


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(RefusedError) as raised:
        call()
    return raised.value.code, str(raised.value)


def test_the_definition_of_the_account_and_no_other(place: Path) -> None:
    write(place, definition())
    assert _serve.read_definition("bk-web1", "vault", str(place)) == definition()
    code, said = refused(lambda: _serve.read_definition("bk-web2", "vault", str(place)))
    assert (code, said) == (77, "web2--vault is not served here")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\n", "vault.json", "VAULT", "-a", "a" * 29, "vault\0"])
def test_hostile_names_of_repositories(place: Path, name: str) -> None:
    assert refused(lambda: _serve.read_definition("bk-web1", name, str(place)))[0] == 64


@pytest.mark.parametrize("account", ["root", "web1", "bk-", "bk-../x", "bk-web1\n", "bk-WEB1"])
def test_other_accounts(place: Path, account: str) -> None:
    # Where a definition of such a name would be.
    if "/" not in account:
        (place / account).mkdir()
        write(place, definition()).rename(place / account / "vault.json")
    code, said = refused(lambda: _serve.read_definition(account, "vault", str(place)))
    assert (code, said) == (77, f"the account {account!r} serves no repositories")


def test_maintenance(place: Path) -> None:
    write(place, definition())
    for flag in ("web1--vault", "all"):
        (place / "maintenance" / flag).symlink_to("nowhere")
        code, said = refused(lambda: _serve.read_definition("bk-web1", "vault", str(place)))
        assert (code, said) == (75, "web1--vault is in maintenance: try again later")
        (place / "maintenance" / flag).unlink()
    (place / "maintenance" / "web1--other").touch()
    assert _serve.read_definition("bk-web1", "vault", str(place))


def test_definitions_that_root_did_not_write(place: Path) -> None:
    path = write(place, definition())
    path.chmod(0o660)
    assert refused(lambda: _serve.read_definition("bk-web1", "vault", str(place)))[0] == 78
    path.chmod(0o640)
    os.chown(path, 1234, 0)
    assert "others than root" in refused(lambda: _serve.read_definition("bk-web1", "vault", str(place)))[1]
    path.rename(place / "elsewhere")
    path.symlink_to(place / "elsewhere")
    assert refused(lambda: _serve.read_definition("bk-web1", "vault", str(place)))[0] == 77
    for bad in ("{", "[]", definition(version=2), definition(name="web2--vault")):
        path.unlink()
        write(place, bad)
        assert refused(lambda: _serve.read_definition("bk-web1", "vault", str(place)))[0] == 78


def test_rclone() -> None:
    assert _serve.command(definition()).argv == (
        "/usr/bin/rclone", "serve", "restic", "--config", "/dev/null", "--stdio", "--append-only", "/srv",
    )  # fmt: skip
    remote = definition(
        path=None, remote="s3:bucket/web1--vault", config="/etc/holdfast/rclone/s3.conf", append_only=False,
        program="/opt/rclone", arguments=["--fast-list"],
    )  # fmt: skip
    assert _serve.command(remote) == _serve.Command(
        (
            "/opt/rclone", "serve", "restic", "--stats", "0", "--low-level-retries", "3", "--fast-list",
            "--config", "/etc/holdfast/rclone/s3.conf", "--stdio", "--log-level", "DEBUG", "s3:bucket/web1--vault/",
        ),
        before=LAYOUT,
        watch="/etc/holdfast/rclone/s3.conf",
    )  # fmt: skip
    # Also before a directory of the server, and whether it is append-only or not.
    for more in ({}, {"append_only": False}):
        assert _serve.command(definition(**more)).before == (*LAYOUT, "/srv")


def test_the_last_word_of_rclone_is_not_the_user_s() -> None:
    """Of an option that is given twice rclone takes the last."""
    argv = _serve.command(definition(arguments=["--bwlimit", "10M", "--fast-list"])).argv
    assert argv[3:6] == ("--bwlimit", "10M", "--fast-list")
    # An option without its value takes the next word: then rclone has two paths, and serves none.
    assert argv[6:] == ("--config", "/dev/null", "--stdio", "--append-only", "/srv")


@pytest.mark.parametrize(
    "argument",
    ["--append-only=false", "--stdio=false", "--config=/tmp/x", "--rc-addr=:1", "-n", "--", "--s3-acl=public-read"],
)
def test_arguments_that_would_undo_a_promise_are_not_served(argument: str) -> None:
    code, said = refused(lambda: _serve.command(definition(arguments=["--fast-list", argument])))
    assert code == 78
    assert (
        said == f"web1--vault: {argument!r} is not for ssh_access_rclone_arguments to say: run the playbook without it"
    )


def test_no_option_of_a_type_that_may_be_served_is_for_the_arguments() -> None:
    """It would beat what the remote says, which was judged."""
    for kind in _rclone.ALLOWED:
        assert _serve.sets_itself(f"--{'gcs' if kind == 'google cloud storage' else kind}-no-check-bucket"), kind
    assert not _serve.sets_itself("--local-no-check-updated")


LAYOUT = ("/usr/local/libexec/holdfast/restic-layout", "web1--vault")
LOG = "2026/11/21 17:00:21 {} : {}: operation error S3: {}, https response error StatusCode: {}, RequestID: , HostID: , api error {}: words\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            LOG.format("ERROR", "locks/4e: Post request put error", "PutObject", 403, "QuotaExceeded"),
            "quota is used up",
        ),
        (
            LOG.format("ERROR", "data/4e: Post request put error", "PutObject", 403, "AccessDenied"),
            "refuses this server's credentials",
        ),
        (
            LOG.format("DEBUG", "config: HEAD request error", "HeadObject", 403, "Forbidden"),
            "refuses this server's credentials",
        ),
        (
            LOG.format("DEBUG", "Couldn't check", "ListObjects", 403, "InvalidAccessKeyId"),
            "refuses this server's credentials",
        ),
        (
            LOG.format("DEBUG", "config: HEAD request error", "HeadObject", 400, "BadRequest"),
            "refuses this server's credentials",
        ),
        (LOG.format("ERROR", "keys: list failed", "ListObjects", 400, "ExpiredToken"), "have expired"),
        (LOG.format("ERROR", "keys: list failed", "ListObjects", 403, "RequestTimeTooSkewed"), "clock"),
        (LOG.format("ERROR", "data/4e: Post request put error", "PutObject", 503, "SlowDown"), None),
        (LOG.format("ERROR", "locks/4e: Delete request remove error", "DeleteObject", 403, "AccessDenied"), None),
        ("2026/11/21 17:00:00 DEBUG : file-1: GET request error: object not found\n", None),
        (
            "2026/11/21 17:00:21 ERROR : locks/4e: Post request put error: operation error S3: PutObject, https response error"
            " StatusCode: 403, RequestID: , HostID: , deserialization failed, failed to decode response body, read tcp"
            " 10.0.0.5:43210->10.0.0.9:9001: use of closed network connection\n",
            None,
        ),
    ],
)
def test_what_no_retry_will_change(line: str, words: str | None) -> None:
    found = _serve.final(line.encode())
    assert (words is None) if found is None else words is not None and words in found


def watched(script: str, before: str = "exec cat", *, watch: str = "/dev/null") -> _serve.Command:
    return _serve.Command(("/bin/sh", "-c", script), before=("/bin/sh", "-c", before), watch=watch)


def ended(wanted: _serve.Command) -> Any:
    """The exit code of a session whose client says nothing."""
    with pytest.raises(SystemExit) as raised:
        _serve.watch(wanted, "web1--vault")
    return raised.value.code


@pytest.fixture
def signals() -> Iterator[None]:
    """What watch does with signals is put back, and it leaves no process behind."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_log_is_passed_on_without_the_debugging(signals: None, capfd: pytest.CaptureFixture[str]) -> None:
    when = "2026/11/21 17:00:21"
    lines = f"{when} DEBUG : a\nof a\n{when} INFO  : b\n{when} ERROR : c\nof c\n\n{when} CRITICAL: d\npanic: e\n"
    assert ended(watched(f"printf '{lines}' >&2; exit 3")) == 3
    # Nobody has looked at what follows the first line of a message, such as a request's headers.
    assert capfd.readouterr().err == f"{when} ERROR : c\n{when} CRITICAL: d\n"
    assert ended(watched("kill -9 $$")) == 137
    capfd.readouterr()
    # Of a directory the log is not looked at.
    assert ended(watched(f"printf '{lines}' >&2; exit 3", watch="")) == 3
    assert capfd.readouterr().err == lines


def test_a_store_that_refuses_for_good_ends_the_session(signals: None) -> None:
    line = LOG.format("DEBUG", "config: HEAD request error", "HeadObject", 403, "Forbidden").strip()
    wanted = watched(f'echo "{line}" >&2; exec sleep 60', "exec sleep 60")
    code, message = refused(lambda: _serve.watch(wanted, "web1--vault"))
    assert code == 75
    assert message.startswith("web1--vault: the store refuses this server's credentials: 2026/11/21")
    assert "\n" not in message


STORE = {
    "type": "azureblob", "endpoint": "http://store1.internal:9001", "access_key_id": "AKIDCANARY", "secret_access_key": "s3cr/et+canary",
    "sas_url": "https://acct.blob.example/box?sv=2024&sig=canary%2Fsig%3D", "connection_string": "A=b;AccountKey=canary+key==;C=d",
    "pass": " canary quoted", "max": "503",
}  # fmt: skip
SAID = [
    ('Get "http://store1.internal:9001/bucket/x?X-Amz-Credential=AKIDCANARY": dial tcp 192.0.2.7:9001: connect: connection refused',
     'Get "***": dial tcp ***: connect: connection refused'),
    ("lookup store1.internal on [2001:db8::53]:53: no such host", "lookup *** on ***: no such host"),
    ("x: https response error StatusCode: 503, s3cr/et+canary, AKIDCANARY, api error SlowDown",
     "x: https response error StatusCode: 503, ***, ***, api error SlowDown"),
    ("Put https://acct.blob.example/box/data?comp=block&sig=canary%2Fsig%3D&sv=2024: EOF", "Put *** EOF"),
    ("sig=canary%2Fsig%3D canary/sig= of acct.blob.example", "sig=*** *** of ***"),
    ("canary+key== and canary quoted", "*** and ***"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "shown"), SAID)
def test_what_a_client_is_told_has_nothing_of_the_stores_file(
    signals: None, capfd: pytest.CaptureFixture[str], place: Path, line: str, shown: str
) -> None:
    config, log = place / "s3.conf", place / "log"
    config.write_text(_rclone.render("s3", STORE))
    prefix = "2026/11/21 17:00:21 ERROR : "
    log.write_text(f"{prefix}{line}\n{line}\n")
    assert ended(watched(f"cat {log} >&2; exit 3", watch=str(config))) == 3
    assert capfd.readouterr().err == f"{prefix}{shown}\n"
    # The control, and a file that rclone cannot read either.
    for other in ("/dev/null", str(place / "absent")):
        assert ended(watched(f"cat {log} >&2; exit 3", watch=other)) == 3
        assert ("canary" in capfd.readouterr().err) == ("canary" in re.sub(r"\S+://\S+", "", line))
    log.write_text(f"{prefix}{line} QuotaExceeded\n")
    wanted = watched(f"cat {log} >&2; exec sleep 60", "exec sleep 60", watch=str(config))
    code, message = refused(lambda: _serve.watch(wanted, "web1--vault"))
    assert (code, message) == (75, f"web1--vault: the store's quota is used up: {prefix}{shown} QuotaExceeded")
    log.write_text(f"{line} QuotaExceeded\n")
    assert refused(lambda: _serve.watch(wanted, "web1--vault")) == (75, "web1--vault: the store's quota is used up")


@pytest.mark.parametrize("watch", ["/dev/null", ""])
def test_a_session_ends_as_the_first_of_both_does(signals: None, watch: str) -> None:
    # The client has said all it had to say.
    assert ended(watched("cat; exit 4", watch=watch)) == 4
    # rclone ends, while the client may still have something to say.
    assert ended(watched("exit 5", "exec sleep 60", watch=watch)) == 5
    # The client was refused: rclone sees an end like any other.
    assert ended(watched("cat; exit 0", "exit 77", watch=watch)) == 77
    assert ended(watched("cat; exit 1", "exit 77", watch=watch)) == 77
    assert ended(watched("cat; exit 0", "kill -9 $$", watch=watch)) == 137


@pytest.mark.parametrize("watch", ["/dev/null", ""])
def test_a_session_that_is_told_to_end_leaves_nothing(signals: None, watch: str) -> None:
    # From within, as the handler is there when it starts: else this would end pytest.
    assert ended(watched("sleep 0.5; kill -TERM $PPID; exec sleep 60", "exec sleep 60", watch=watch)) == 143


def test_rclone_gets_the_session_through_the_one_before_it(signals: None) -> None:
    # A process of its own, whose standard input and output are the session.
    code = (
        f"import sys; sys.path.insert(0, {str(Path(_serve.__file__).parent)!r}); import _serve;"
        "_serve.watch(_serve.Command(('/bin/cat',), before=('/usr/bin/tr', 'a-z', 'A-Z')), 'web1--vault')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"hello" * 100_000, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO" * 100_000, b"")


def test_borg(place: Path) -> None:
    program = place / "borg"
    program.write_text("#!/usr/bin/python3\nimport borg\n")
    one = definition(kind="borg", path="/srv/", quota="200G", program=str(program))
    made = _serve.command({**one, "path": "/usr/bin"})
    assert made.argv[:3] == ("/usr/bin/python3", "-I", "-c")
    assert made.argv[4:] == (
        str(program), "serve", "--append-only", "--restrict-to-repository", "/usr/bin", "--storage-quota", "200G",
    )  # fmt: skip
    assert made.directory == "/usr"
    assert _serve.command({**one, "append_only": False, "quota": None}).argv[:3] == (
        str(program), "serve", "--restrict-to-repository",
    )  # fmt: skip
    assert _serve.command({**one, "borg_major": 2}).argv[2:4] == ("--permissions", "no-delete")


@pytest.mark.parametrize("begin", [b"\x7fELF", b"#!/bin/sh\n", b"#!/usr/bin/env python3\n", b"", None])
def test_an_append_only_borg_that_is_no_python_program_serves_nothing(place: Path, begin: bytes | None) -> None:
    """What a session may not call is taken out of borg before it runs, which takes the program as it was written."""
    program = place / "borg"
    if begin is not None:
        program.write_bytes(begin)
    one = definition(kind="borg", path="/srv", program=str(program))
    code, said = refused(lambda: _serve.command(one))
    assert code == 78
    assert str(program) in said
    assert _serve.command({**one, "append_only": False}).argv[0] == str(program)


# As far as borg 1.4 goes that way: whoever creates a repository gets one that is not append-only, with the quota in its
# config; what is put is written, and compared with the quota then; what was not committed is deleted when somebody
# writes next. The index follows the commit, and who finds none makes it. A segment stays open that was read once.
_BORG_MODULES = {
    "__init__": "",
    "locking": """
class LockTimeout(Exception):
    pass
""",
    "repository": """
import os

def format_file_size(size):
    return f'{size} B'

class LoggedIO:
    def __init__(self, path):
        self.path, self.segment, self.fds = path, 0, {}

    def committed(self, segment):
        if segment not in self.fds:
            self.fds[segment] = open(self.segment_filename(segment), 'rb')
        self.fds[segment].seek(0)
        return self.fds[segment].read(6) == b'COMMIT'

    def segments(self):
        names = os.listdir(self.path + '/data') if os.path.isdir(self.path) else []
        return sorted(map(int, names), reverse=True)

    def get_segments_transaction_id(self):
        return next((segment for segment in self.segments() if self.committed(segment)), None)

    def segment_filename(self, segment):
        return os.path.join(self.path, 'data', str(segment))

    def cleanup(self, transaction_id):
        self.segment = transaction_id + 1
        for segment in self.segments():
            if segment > transaction_id:
                self.delete_segment(segment)

    def delete_segment(self, segment):
        os.unlink(self.segment_filename(segment))

class Index(dict):
    def size(self):
        return 1000 + 100 * len(self)

class Repository:
    class StorageQuotaExceeded(Exception):
        pass

    def __init__(self, path, append_only, storage_quota):
        self.append_only, self.storage_quota = append_only, 50 if storage_quota is None else storage_quota
        self.path = path
        self.io, self._active_txn, self.transaction_doomed = LoggedIO(path), False, None
        self.index, self.exclusive, self.lock = None, True, None

    def get_index_transaction_id(self):
        return max((int(name[6:]) for name in os.listdir(self.path) if name.startswith('index.')), default=None)

    def check_transaction(self):
        transaction_id = self.io.get_segments_transaction_id()
        if transaction_id != self.get_index_transaction_id():
            self.prepare_txn(self.get_index_transaction_id(), do_cleanup=False)
            open(os.path.join(self.path, f'index.{transaction_id}'), 'w').close()
            self.rollback()

    def get_transaction_id(self):
        self.check_transaction()
        return self.get_index_transaction_id()

    def prepare_txn(self, transaction_id, do_cleanup=True):
        self._active_txn, self.storage_quota_use = True, 0
        self.index = Index() if self.index is None else self.index
        if do_cleanup:
            self.io.cleanup(transaction_id)

    def __len__(self):
        if self.index is None:
            self.get_transaction_id()
            self.index = Index()
        return len(self.index)

    def list(self, limit=None, marker=None):
        return len(self)

    def get(self, id):
        return len(self)

    def scan(self, limit=None, marker=None):
        return [self.io.committed(segment) for segment in self.io.segments()]

    def check(self, repair=False):
        self.prepare_txn(None, do_cleanup=False)
        raise ValueError('not all of it could be read')

    def put(self, id, data, wait=True):
        if not self._active_txn:
            self.prepare_txn(self.get_transaction_id())
        with open(self.io.segment_filename(self.io.segment), 'ab') as stream:
            stream.write(data)
        self.storage_quota_use += len(data)
        self.index[id] = self.io.segment
        if self.storage_quota and self.storage_quota_use > self.storage_quota:
            self.transaction_doomed = self.StorageQuotaExceeded('too late')
            raise self.transaction_doomed

    def delete(self, id, wait=True):
        self.put(id, b'')

    def commit(self, save_space=False, compact=True, threshold=0.1, cleanup_commits=False):
        if self.transaction_doomed:
            exception = self.transaction_doomed
            self.rollback()
            raise exception
        self.io.segment += 1
        for name in (f'data/{self.io.segment}', f'index.{self.io.segment}'):
            with open(os.path.join(self.path, name), 'wb') as stream:
                stream.write(b'COMMIT')
        self.rollback()

    def rollback(self):
        self._active_txn, self.transaction_doomed, self.index = False, None, None

    def close(self):
        self.io = None

    def save_key(self, keydata):
        print('saved', keydata)
""",
    "remote": """
from .repository import Repository

class RepositoryServer:
    rpc_methods = ('open', 'destroy', 'put')

    def __init__(self, append_only, storage_quota):
        self.append_only, self.storage_quota = append_only, storage_quota

    def open(self, path, create=False):
        self.repository = Repository(path, not create and self.append_only, self.storage_quota)
        return path
""",
    # What is called is not what a client may call, but how: by name, with those arguments only that the signature has.
    "archiver": """
import inspect, os, sys
from .remote import RepositoryServer

def called(server, method, **named):
    try:
        found = getattr(server, method)
    except AttributeError:
        found = getattr(server.repository, method)
    known = inspect.signature(found).parameters
    try:
        found(**{name: value for name, value in named.items() if name in known})
    except Exception as error:
        return ' '.join([type(error).__name__, *map(str, error.args)])
    return ''

def session(path, quota):
    server = RepositoryServer(True, quota)
    server.open(path)
    return server

def main():
    exec(open(os.path.dirname(__file__) + '.script').read(), globals())
    return 3
""",
}


@pytest.fixture
def repository(place: Path) -> Path:
    """A directory with what borg's have in common, and nothing committed but the beginning."""
    path = place / "repository"
    (path / "data").mkdir(parents=True)
    commit(path, 0)
    return path


def commit(path: Path, segment: int, *, index: bool = True) -> None:
    """What another session commits, without its index where that one died before it wrote it."""
    (path / f"data/{segment}").write_bytes(b"COMMIT")
    if index:
        (path / f"index.{segment}").touch()


def in_borg(place: Path, script: str, *values: Any, gone: bool = False) -> list[str]:
    """What a script prints in a session of borg, after what is run first; `given`: the repository and `values`."""
    (place / "borg").mkdir(exist_ok=True)
    for name, text in _BORG_MODULES.items():
        (place / f"borg/{name}.py").write_text(text)
    wrapped = _serve._BORG.replace("\nWAIT = 400\n", "\nWAIT = 1\n")
    assert wrapped != _serve._BORG
    code = f"import sys; sys.path.insert(0, {str(place)!r})\n{wrapped}"
    (place / "borg.script").write_text(f"given = {(str(place / 'repository'), *values)!r}\n{script}")
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code, "/usr/bin/borg", "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as session:
        # Its standard input stays open, as long as the client is there.
        if gone:
            assert session.stdin
            session.stdin.close()
        assert session.stdout
        assert session.stderr
        found, said = session.stdout.read(), session.stderr.read()
    assert (session.returncode, said) == (3, "")
    return found.splitlines()


def test_a_borg_session_cannot_destroy_and_never_forgets_what_it_is(place: Path) -> None:
    """What is run first, with a borg that tells what it was given."""
    script = """
print(sys.argv, RepositoryServer.rpc_methods, list(inspect.signature(RepositoryServer.open).parameters))
for quota in (None, 200):
    for create in (True, False):
        server = RepositoryServer(True, quota)
        print(server.open("/r", create=create), server.repository.append_only, server.repository.storage_quota)
"""
    assert in_borg(place, script) == [
        "['/usr/bin/borg', 'serve'] ('open', 'put') ['self', 'path', 'create']",
        *["/r True 0"] * 2,
        *["/r True 200"] * 2,
    ]


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*"))


@contextlib.contextmanager
def another_writes(repository: Path) -> Iterator[None]:
    """Another session, that does not end."""
    other = os.open(repository, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(other)


_FILL = """
server = session(given[0], given[1])
print([called(server, 'put', id=each, data=bytes(given[2]), junk=1).split(' ')[0] for each in range(given[3])])
"""


def test_a_borg_session_writes_no_more_than_its_quota(place: Path, repository: Path) -> None:
    """A client that goes on after a refusal; borg would write first and compare then, and all of it was on disk."""
    quota = 1_000_000
    said = in_borg(place, _FILL + "print(called(server, 'commit'), '|', called(server, 'commit'))", quota, 100_000, 60)
    answers = ast.literal_eval(said[0])
    taken = answers.index("StorageQuotaExceeded")
    assert answers == [""] * taken + ["StorageQuotaExceeded"] * (60 - taken)
    assert taken > 7
    # The transaction is lost, and the next one may be committed.
    assert re.fullmatch(r"StorageQuotaExceeded 1000000 B \d{7} B \| ", said[1])
    assert size(repository) < quota / 2


def test_what_borg_sessions_leave_does_not_add_up(place: Path, repository: Path) -> None:
    """Cut off without a commit: of each, as much as the quota would stay, and the next one would not see it."""
    quota = 1_000_000
    for _session in range(3):
        in_borg(place, _FILL, quota, 100_000, 60)
        assert quota / 2 < size(repository) < quota
    rolled = (
        "server = session(*given)\n"
        "print([called(server, 'put', id=1, data=bytes(400_000)) or called(server, 'rollback') for turn in range(3)])"
    )
    assert in_borg(place, rolled, quota) == ["['', '', '']"]
    assert size(repository) < quota
    # Whoever reads has the file open; its space is free all the same.
    with (repository / "data/1").open("rb") as read:
        assert in_borg(place, _FILL + "print(called(server, 'commit'))", quota, 400_000, 1) == ["['']", ""]
        assert os.fstat(read.fileno()).st_size == 0


@pytest.mark.parametrize("call", ["called(server, 'put', id=1, data=b'')", "called(server, 'delete', id=1)", "''"])
def test_commits_of_borg_are_bounded_in_number(place: Path, repository: Path, call: str) -> None:
    """Each leaves files in which there is next to nothing, even a commit of nothing."""
    quota = 1_000_000
    script = (
        f"server = session(*given)\nprint([({call} or called(server, 'commit')).split(' ')[0] for turn in range(100)])"
    )
    answers = ast.literal_eval(in_borg(place, script, quota)[0])
    assert answers[0] == ""
    assert answers[-1] == "StorageQuotaExceeded"
    assert len(list(repository.rglob("*"))) <= quota / 16384


@pytest.mark.parametrize(
    ("call", "each"), [("'put', id=turn, data=b''", 123 + 100), ("'delete', id=1", 123)], ids=["put", "delete"]
)
def test_what_borg_writes_of_nothing_counts(place: Path, repository: Path, call: str, each: int) -> None:
    """An entry, another for what it replaces, and its place in the index."""
    script = f"server = session(*given)\nprint([called(server, {call}) for turn in range(10000)].count(''))"
    assert 1000 < int(in_borg(place, script, 500_000)[0]) < 500_000 / each


def test_one_borg_session_writes_at_a_time(place: Path, repository: Path) -> None:
    """A client can break borg's own lock, and ask for none: each session would have a quota of its own."""
    with another_writes(repository):
        # Who is refused once does not try again with each call that is on its way already.
        counted = (
            "import fcntl\nown, tries = fcntl.flock, []\nfcntl.flock = lambda *given: (tries.append(1), own(*given))\n"
        )
        answers, tries = in_borg(place, f"{counted}{_FILL}print(len(tries))", 1_000_000, 10, 20)
        assert answers == str(["LockTimeout"] * 20)
        assert int(tries) < 5
        # Where a check that failed has left a transaction, too.
        begun = _FILL.replace("\nprint", "\ncalled(server, 'check')\nprint")
        assert in_borg(place, begun, 1_000_000, 10, 2) == [str(["LockTimeout"] * 2)]
        # Nothing is measured without a quota, and what others committed is theirs all the same.
        assert in_borg(place, _FILL, None, 10, 2) == [str(["LockTimeout"] * 2)]
        for call in ("'delete', id=1", "'commit'", "'save_key', keydata=b''", "'check'"):
            one = f"server = session(*given)\nprint(called(server, {call}).split(' ')[0])"
            assert in_borg(place, one, None) == ["LockTimeout"]
        assert [path.name for path in (repository / "data").iterdir()] == ["0"]


@pytest.mark.parametrize("quota", [None, 1_000_000])
@pytest.mark.parametrize("commits", [False, True])
def test_a_borg_session_waits_for_one_whose_client_is_gone(
    place: Path, repository: Path, commits: bool, quota: int | None
) -> None:
    """But not for one that goes on, and commits: it has read what is not true any more, and would lose what that saved."""
    script = """
import fcntl
own, turn = fcntl.flock, [0]

def ended(*given):
    turn[0] += 1
    if turn[0] == 2:
        if commits:
            for name in ('/data/7', '/index.7'):
                with open(server.repository.path + name, 'w') as stream:
                    stream.write('COMMIT')
        own(other, fcntl.LOCK_UN)
    return own(*given)

other = os.open(given[0], os.O_RDONLY)
own(other, fcntl.LOCK_EX)
fcntl.flock = ended
server = session(*given)
print(called(server, 'put', id=1, data=b'x'), called(server, 'put', id=1, data=b'x'))
"""
    said = in_borg(place, f"commits = {commits}\n{script}", quota)
    assert said == [" ".join([f"LockTimeout {repository}"] * 2) if commits else " "]
    assert (repository / "data/1").exists() is not commits


# Whether a session holds up those that write.
_FREE = """
import fcntl
def free(*_given):
    other = os.open(given[0], os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(other)
    return True
server = session(*given[:2])
"""


def test_whoever_reads_from_a_borg_repository_waits_for_nobody_and_holds_up_nobody(
    place: Path, repository: Path
) -> None:
    reading = f"{_FREE}print([called(server, name, id=1) for name in ('list', 'get', '__len__', 'scan')], free())"
    with another_writes(repository):
        assert in_borg(place, reading, None) == ["['', '', '', ''] False"]
    assert in_borg(place, reading, None) == ["['', '', '', ''] True"]
    # An index that nobody has written is written for whoever reads, who may write then.
    commit(repository, 2, index=False)
    then = "print(called(server, 'put', id=1, data=b'x'), free())"
    assert in_borg(place, f"{reading}\n{then}", None) == ["['', '', '', ''] True", " False"]
    assert (repository / "index.2").exists()
    assert sorted(path.name for path in (repository / "data").iterdir()) == ["0", "2", "3"]


def test_the_index_of_a_borg_session_that_writes_is_waited_for(place: Path, repository: Path) -> None:
    """It follows in a moment; two who write it at a time would spoil it."""
    commit(repository, 2, index=False)
    soon = f"import threading\nthreading.Timer(0.3, open, ['{repository}/index.2', 'w']).start()\n"
    asked = "print(called(server, 'list').split(' ')[0])"
    with another_writes(repository):
        assert in_borg(place, f"{_FREE}{soon}{asked}", None) == [""]
        (repository / "index.2").unlink()
        assert in_borg(place, f"{_FREE}{asked}", None) == ["LockTimeout"]


def test_what_a_failed_check_of_borg_left_is_no_transaction(place: Path, repository: Path) -> None:
    script = f"{_FREE}print(called(server, 'check'), free(), server.repository._active_txn)"
    assert in_borg(place, script, None) == ["ValueError not all of it could be read True False"]


def test_a_borg_session_sees_what_others_committed_where_it_has_an_older_file_open(
    place: Path, repository: Path
) -> None:
    """Uncommitted segments that it keeps open, whose numbers others took: it would delete those."""
    script = f"""{_FREE}
for segment in (1, 2):
    open(given[0] + '/data/' + str(segment), 'w').close()
called(server, 'scan')
for segment in (1, 2):
    os.unlink(given[0] + '/data/' + str(segment))
    with open(given[0] + '/data/' + str(segment), 'w') as stream:
        stream.write('COMMIT')
open(given[0] + '/index.2', 'w').close()
print(called(server, 'put', id=1, data=b'x').split(' ')[0])
"""
    assert in_borg(place, script, None) == ["LockTimeout"]
    assert {path.name: path.read_bytes() for path in (repository / "data").iterdir()} == {
        name: b"COMMIT" for name in ("0", "1", "2")
    }


@pytest.mark.parametrize("call", ["prepare_txn(0)", "io.cleanup(0)", "io.delete_segment(2)"])
def test_what_was_committed_is_never_deleted(place: Path, repository: Path, call: str) -> None:
    """Whatever part of borg has an older commit for the last one, even in a session that writes."""
    commit(repository, 2)
    script = f"""{_FREE}
called(server, 'put', id=1, data=b'x')
try:
    server.repository.{call}
except (LockTimeout, ValueError) as error:
    print(type(error).__name__, server.repository._active_txn)
"""
    answer = "ValueError True" if "delete" in call else f"LockTimeout {'cleanup' in call}"
    assert in_borg(place, script.replace("LockTimeout,", "__import__('borg.locking').locking.LockTimeout,"), None) == [
        answer
    ]
    assert {"0", "2"} <= {path.name for path in (repository / "data").iterdir()}


def test_an_old_client_of_borg_that_waits_for_its_lock_holds_up_nobody(place: Path, repository: Path) -> None:
    """It has borg's lock for reading, and gets another one when it writes; meanwhile others commit."""
    script = f"""{_FREE}
class Lock:
    def got_exclusive_lock(self):
        return False
    def upgrade(self):
        print(free())
        open(given[0] + '/data/1', 'w').write('COMMIT')
server.repository.exclusive, server.repository.lock = None, Lock()
print(called(server, 'put', id=1, data=b'x').split(' ')[0])
"""
    assert in_borg(place, script, None) == ["True", "LockTimeout"]
    assert (repository / "data/1").read_bytes() == b"COMMIT"


def test_a_borg_session_waits_for_nobody_once_its_client_is_gone(place: Path, repository: Path) -> None:
    """What it had asked for is not done later, when nobody is there to learn of it."""
    with another_writes(repository):
        counted = (
            "import fcntl\nown, tries = fcntl.flock, []\nfcntl.flock = lambda *given: (tries.append(1), own(*given))\n"
        )
        script = f"{counted}{_FILL}print(len(tries))"
        assert in_borg(place, script, 1_000_000, 10, 1, gone=True) == [str(["LockTimeout"]), "1"]


def test_what_a_commit_writes_beside_what_is_there_counts(place: Path, repository: Path) -> None:
    """Borg writes its hints anew before it removes the old ones."""
    (repository / "hints.0").write_bytes(bytes(300_000))
    said = ast.literal_eval(in_borg(place, _FILL, 1_000_000, 100_000, 9)[0])
    assert said.count("") == 3


def test_what_a_borg_session_deletes_stays_in_a_hard_link(place: Path, repository: Path) -> None:
    """A copy of the administrator's, of links; what is deleted otherwise is emptied first, since somebody may read it."""
    held = (repository / "data/5").open("xb")
    held.write(b"x" * 1000)
    held.flush()
    (repository / "data/6").write_bytes(b"x" * 1000)
    os.link(repository / "data/6", place / "copy")
    in_borg(place, _FILL, 1_000_000, 10, 1)
    assert sorted(path.name for path in (repository / "data").iterdir()) == ["0", "1"]
    assert os.fstat(held.fileno()).st_size == 0
    held.close()
    assert (place / "copy").stat().st_size == 1000


def test_a_borg_session_lets_another_write_once_it_is_closed(place: Path, repository: Path) -> None:
    """The next one begins as soon as borg has released its own lock, before the process has ended."""
    script = """
import fcntl
other = os.open(given[0], os.O_RDONLY)
for turn in range(2):
    server = session(*given)
    print(called(server, 'put', id=1, data=b''))
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print('alone')
    except BlockingIOError:
        server.repository.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_UN)
"""
    assert in_borg(place, script, 1_000_000) == ["", ""]


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        (b"", True),
        (b"hqlhbGdvcml0aG2mc2hhMjU2\npGRhdGHaAN6v+/8=", True),
        (b"QUJD\n", True),
        (b"QUJD\rappend_only = 0", False),
        (b"QUJD\r[repository]", False),
        (b"QUJD\nappend_only = 0", False),
        (b"QUJD\0", False),
        (b"A" * 10_000, False),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_key_of_borg_is_nothing_else(place: Path, key: bytes, taken: bool) -> None:
    """borg takes a carriage return in its configuration, where the key is, for the end of a line."""
    said = in_borg(place, "print(called(session(given[0], None), 'save_key', keydata=given[1]))", key)
    assert said == ([f"saved {key!r}", ""] if taken else ["ValueError this is no key of borg"])


def test_sftp() -> None:
    made = _serve.command(definition(kind="sftp"))
    assert made.argv[-2:] == ("-d", "/srv")
    # What names a file instead of opening it. Before Linux 6.2 Landlock does not see a file truncated so, and it never sees a mode changed:
    # setstat, which restic 0.19 needs, is judged before.
    assert set(made.argv[made.argv.index("-P") + 1].split(",")) == {"symlink", "hardlink", "lsetstat"}
    assert made.before == (*LAYOUT, "/srv", "sftp")
    assert (made.confine, made.must_confine) == ("/srv", True)
    assert not _serve.command(definition(kind="sftp", confine="if_possible")).must_confine


def test_what_cannot_be_served() -> None:
    assert "is its disk mounted" in refused(lambda: _serve.command(definition(path="/nowhere")))[1]
    assert "is no kind" in refused(lambda: _serve.command(definition(kind="shell")))[1]


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What would have been executed, by the account bk-web1. What serve changes of its process is put back."""
    pipe, umask = signal.getsignal(signal.SIGPIPE), os.umask(0o022)
    seen: dict[str, Any] = {}

    def execve(program: str, argv: tuple[str, ...], environment: dict[str, str]) -> None:
        seen.update(program=program, argv=argv, environment=environment, umask=os.umask(0o022), cwd=os.getcwd())
        seen["pipe"] = signal.getsignal(signal.SIGPIPE)
        seen["first"] = len(seen) == 6

    before = _serve.read_definition
    monkeypatch.setattr(_serve, "read_definition", lambda account, name: before(account, name, str(place)))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_name="bk-web1"))
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "closerange", lambda low, high: seen.update(closed=(low, high)))
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "rm -rf /")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.chdir("/tmp")
    yield seen
    signal.signal(signal.SIGPIPE, pipe)
    os.umask(umask)


def test_started_in_a_clean_environment(place: Path, started: dict[str, Any]) -> None:
    write(place, definition(kind="borg", append_only=False))
    _serve.serve(["vault"])
    assert started["program"] == "/usr/bin/borg"
    assert started["environment"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/var/lib/holdfast/home", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    assert (started["umask"], started["cwd"], started["closed"]) == (0o077, "/", (3, 256))
    assert started["pipe"] == signal.SIG_DFL


def test_sessions_of_the_account_are_counted(tmp_path: Path) -> None:
    me = os.getuid()
    for number, (title, uid) in enumerate(
        [
            *[(f"sshd{session}: bk-web1{tty}\0\0", me) for session in ("", "-session") for tty in ("", "@notty")],
            # Who is not let in yet, which needs no key; another client; another user's process of that name.
            ("sshd-session: bk-web1 [priv]", 0),
            ("sshd-session: bk-web1 [net]", me),
            ("sshd-session: bk-web10@notty", me),
            ("sshd: bk-web1@notty", me + 1),
            ("sh\0-c\0sshd: bk-web1@notty", me),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/cmdline").write_text(title)
        (tmp_path / f"{number}/status").write_text(f"Name:\tsshd\nUid:\t{uid}\t0\t0\t0\n")
    (tmp_path / "99").mkdir()  # ended meanwhile
    (tmp_path / "self").mkdir()
    assert _serve.sessions("bk-web1", str(tmp_path)) == 4
    assert _serve.sessions("bk-web2", str(tmp_path)) == 0


def test_more_sessions_than_a_client_may_have_are_refused(
    place: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, definition(kind="borg", append_only=False))
    monkeypatch.setattr(_serve, "sessions", lambda account: {"bk-web1": _serve.MOST_SESSIONS + 1}[account])
    assert refused(lambda: _serve.serve(["vault"])) == (
        75,
        "web1--vault: this client has 50 sessions here already: let fewer of its units begin at a time",
    )
    assert not started
    # This one is counted.
    monkeypatch.setattr(_serve, "sessions", lambda _account: _serve.MOST_SESSIONS)
    _serve.serve(["vault"])
    assert started["program"] == "/usr/bin/borg"


def test_refusals_are_one_line(
    place: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in ((["serve"], 64), (["serve", "vault", "more"], 64), (["serve", "other"], 77)):
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            _serve.main()
        assert ended.value.code == code
        said = capsys.readouterr().err
        assert said.startswith("holdfast: ")
        assert said.count("\n") == 1
    assert not started


def test_rclone_too(
    place: Path,
    started: dict[str, Any],
    signals: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is a child, with another one before it."""
    program = place / "rclone"
    program.write_text("#!/bin/sh\numask; pwd; env | grep -v ^_= | sort; ls /proc/self/fd | wc -l; exec cat\n")
    program.chmod(0o755)
    monkeypatch.setattr(_serve, "LAYOUT", "/bin/echo")
    write(place, definition(program=str(program)))
    with pytest.raises(SystemExit) as done:
        _serve.serve(["vault"])
    assert done.value.code == 0
    assert capfd.readouterr().out.splitlines() == [
        "0077", "/", "HOME=/var/lib/holdfast/home", "LC_ALL=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin", "PWD=/", "4", "web1--vault /srv",
    ]  # fmt: skip


def test_a_program_that_is_missing(
    place: Path, started: dict[str, Any], signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(program: str, *_rest: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", program)

    monkeypatch.setattr(os, "execve", missing)
    write(place, definition(kind="borg", append_only=False))
    assert refused(lambda: _serve.serve(["vault"])) == (78, "web1--vault: /usr/bin/borg: No such file or directory")
    for layout in ("/bin/cat", "/nowhere/layout"):
        monkeypatch.setattr(_serve, "LAYOUT", layout)
        write(place, definition(program="/nowhere/rclone"))
        code, said = refused(lambda: _serve.serve(["vault"]))
        name = "/nowhere/rclone" if layout == "/bin/cat" else layout
        assert (code, said) == (78, f"web1--vault: {name}: No such file or directory")


def test_sftp_is_confined_or_refused(place: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    confined: list[Any] = []
    monkeypatch.setattr(_serve, "landlock", confined.append)
    monkeypatch.setattr(_serve, "stand_before", confined.append)
    write(place, definition(kind="sftp"))
    _serve.serve(["vault"])
    # What reads along could not be started any more by what is confined.
    assert confined == [(*LAYOUT, "/srv", "sftp"), "/srv"]

    def cannot(_directory: str) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    started.clear()
    monkeypatch.setattr(_serve, "landlock", cannot)
    assert "cannot confine sftp" in refused(lambda: _serve.serve(["vault"]))[1]
    assert "program" not in started
    write(place, definition(kind="sftp", confine="if_possible"))
    _serve.serve(["vault"])
    assert started["program"] == "/usr/lib/openssh/sftp-server"


def test_a_confined_session_comes_through_what_stands_before_it(place: Path) -> None:
    script = "import os, sys; sys.path.insert(0, sys.argv[1]); import _serve; _serve.stand_before(sys.argv[2:]); os.execv('/bin/cat', ['cat'])"
    folder = str(Path(_serve.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, folder, "/bin/sed", "s/x/y/"],
        input=b"axa",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"aya")


def _kernel_confines() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) > 0)


def _confined(directory: Path, action: Callable[[], Any]) -> str:
    """What a process that is confined to a directory gets: ok, or the error's name."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _serve.landlock(str(directory))
            action()
            said = "ok"
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        except BaseException as error:
            said = repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(not _kernel_confines(), reason="this kernel has no Landlock")
def test_landlock(place: Path) -> None:
    inside, outside = place / "bk-web1", place / "maintenance"
    (outside / "file").write_text("x")
    assert _confined(inside, lambda: (inside / "new").write_text("x")) == "ok"
    assert _confined(inside, lambda: (inside / "new").rename(inside / "renamed")) == "ok"
    assert _confined(inside, (inside / "directory").mkdir) == "ok"
    assert _confined(inside, lambda: os.listdir(inside)) == "ok"
    assert _confined(inside, lambda: Path("/etc/passwd").read_text()) == "ok"
    assert _confined(inside, lambda: Path("/etc/hosts").read_text()) == "EACCES"
    assert _confined(inside, lambda: Path("/etc/shadow").read_text()) == "EACCES"
    assert _confined(inside, (outside / "file").read_text) == "EACCES"
    assert _confined(inside, lambda: (outside / "other").write_text("x")) == "EACCES"
    assert _confined(inside, lambda: os.listdir("/")) == "EACCES"
    assert _confined(inside, lambda: (inside / "link").symlink_to("/etc/shadow")) == "EACCES"
    assert _confined(inside, lambda: os.mkfifo(inside / "fifo")) == "EACCES"
    assert _confined(inside, lambda: os.link(outside / "file", inside / "stolen")) in ("EACCES", "EXDEV")
    assert stat.S_ISREG((inside / "renamed").stat().st_mode)


class _Libc:
    """System calls that are recorded, of a kernel with a version of its own."""

    def __init__(self, version: int, fails: int | None = None, prctl: int = 0) -> None:
        self.version, self.fails, self.answer = version, fails, prctl
        self.calls: list[tuple[int, Any]] = []

    def syscall(self, number: ctypes.c_long, *arguments: Any) -> int:
        self.calls.append((number.value, arguments))
        if number.value == self.fails:
            ctypes.set_errno(errno.EPERM)
            return -1
        if number.value != 444:
            return 0
        return self.version if arguments[0] is None else os.open("/", os.O_RDONLY)

    def prctl(self, *_arguments: Any) -> int:
        return self.answer


@pytest.mark.parametrize(
    ("version", "size", "rights", "net", "scoped"),
    [(1, 8, 13, 0, 0), (3, 8, 15, 0, 0), (4, 16, 15, 3, 0), (5, 16, 16, 3, 0), (6, 24, 16, 3, 3), (7, 24, 16, 3, 3)],
)
def test_landlock_of_every_version(
    monkeypatch: pytest.MonkeyPatch, version: int, size: int, rights: int, net: int, scoped: int
) -> None:
    """No TCP, and neither signals nor abstract sockets of others, where the kernel can."""
    libc = _Libc(version)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_a, **_k: libc)
    _serve.landlock("/srv", reads=("/usr/lib", "/nowhere"))
    made = libc.calls[1][1]
    assert (made[1].value, list(made[0])) == (size, [(1 << rights) - 1, net, scoped])
    assert [number for number, _arguments in libc.calls] == [444, 444, 445, 445, 445, 446]


def test_landlock_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for libc in (_Libc(7, fails=446), _Libc(7, prctl=-1)):
        monkeypatch.setattr(ctypes, "CDLL", lambda *_a, _libc=libc, **_k: _libc)
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the kernel
            _serve.landlock("/srv")
