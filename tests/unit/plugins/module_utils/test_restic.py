# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _restic
from ansible_collections.holdfast.backup.plugins.module_utils._model import Lock, Repository
from ansible_collections.holdfast.backup.plugins.module_utils._restic import (
    EngineError,
    Look,
    MissingBinaryError,
    Restic,
    classify,
    find_binary,
)
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.module_utils._source import Source

from tests.unit.plugins.module_utils import recorded
from tests.unit.plugins.module_utils.recorded import ID, KEY, Runner, make, name, retried

NOW = 1795265797.0
NO_REPOSITORY = "there is no repository at this location"
WRONG = "the password opens no key of this repository"

REMOTE = Source("rest:http://u:sesame-open@h:8000/u/", "/s/password", repository_file="/s/location", cacert="/s/ca.pem")


def restic(runner: Runner, source: Source = REMOTE, **arguments: Any) -> Restic:
    return Restic(source, binary="/usr/bin/restic", timeout=30, runner=runner, clock=lambda: 1000.0, **arguments)


# --- what is run -----------------------------------------------------------------------------------------------------


def test_argv_and_environment_of_a_remote_repository() -> None:
    runner = Runner({"cat": [recorded.config()]})
    restic(runner, options={"rest.connections": "2", "a": "b"}, key_hint=KEY).cat_config()
    assert runner.calls == [
        {
            "command": "cat",
            "argv": [
                "/usr/bin/restic",
                "--no-cache",
                "--cacert",
                "/s/ca.pem",
                "-o",
                "a=b",
                "-o",
                "rest.connections=2",
                "--no-lock",
                "cat",
                "config",
            ],
            "environment": {
                "RESTIC_KEY_HINT": KEY,
                "RESTIC_PASSWORD_FILE": "/s/password",
                "RESTIC_REPOSITORY_FILE": "/s/location",
            },
            "files": {},
            "user": None,
            "timeout": 30,
            "stop_on": _restic._RETRY,
            "stop_after": 2,
        }
    ]


def test_argv_and_environment_with_a_cache_and_backend_variables() -> None:
    source = Source("s3:https://h/b", "/s/password", environment={"AWS_SECRET_ACCESS_KEY": "hidden"})
    runner = Runner({"snapshots": [recorded.NO_SNAPSHOTS]})
    restic(runner, source, cache_directory="/var/cache/holdfast").snapshots()
    assert runner.calls[0]["argv"] == ["/usr/bin/restic", "--no-lock", "snapshots", "--json"]
    assert runner.calls[0]["environment"] == {
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "RESTIC_CACHE_DIR": "/var/cache/holdfast",
        "RESTIC_PASSWORD_FILE": "/s/password",
        "RESTIC_REPOSITORY": "s3:https://h/b",
    }


def test_a_proxy_is_in_the_environment_and_what_the_backend_says_counts_more() -> None:
    runner = Runner({"cat": [recorded.config()] * 2})
    restic(runner, proxy="http://proxy:3128").cat_config()
    named = {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}
    assert named.items() <= runner.calls[0]["environment"].items()
    source = Source("s3:https://h/b", "/s/password", environment={"HTTPS_PROXY": "http://u:p@other:1"})
    restic(runner, source, proxy="http://proxy:3128").cat_config()
    assert runner.calls[1]["environment"]["HTTPS_PROXY"] == "http://u:p@other:1"


def test_argv_of_the_other_commands() -> None:
    runner = Runner({"version": [recorded.VERSION_18], "key": [recorded.keys()]})
    adapter = restic(runner, Source("/srv/r", "/p"))
    assert adapter.version() == (0, 18, 0)
    adapter.key_list()
    assert [call["argv"] for call in runner.calls] == [
        ["/usr/bin/restic", "--no-cache", "version"],
        ["/usr/bin/restic", "--no-cache", "--no-lock", "key", "list", "--json"],
    ]


def test_init_is_patient_and_takes_the_chunker_of_another() -> None:
    other = Source("/srv/other", "/p2", environment={"B": "2"}, cacert="/s/other.pem")
    runner = Runner({"init": [recorded.initialized(), recorded.initialized()]})
    adapter = restic(runner)
    adapter.init()
    adapter.init(repository_version="2", from_source=other)
    assert runner.calls[0]["argv"] == ["/usr/bin/restic", "--no-cache", "--cacert", "/s/ca.pem", "init", "--json"]
    assert runner.calls[0]["stop_on"] is None
    assert runner.calls[1]["argv"] == [
        *["/usr/bin/restic", "--no-cache", "--cacert", "/s/ca.pem", "--cacert", "/s/other.pem", "init", "--json"],
        *["--repository-version", "2", "--copy-chunker-params"],
    ]
    assert runner.calls[1]["environment"] == {
        "B": "2",
        "RESTIC_FROM_PASSWORD_FILE": "/p2",
        "RESTIC_FROM_REPOSITORY": "/srv/other",
        "RESTIC_PASSWORD_FILE": "/s/password",
        "RESTIC_REPOSITORY_FILE": "/s/location",
    }


def test_another_account_gets_the_secrets_in_memory(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pw")
    (tmp_path / "location").write_text("/srv/r")
    source = Source("/srv/r", str(tmp_path / "password"), repository_file=str(tmp_path / "location"))
    runner = Runner({"cat": [recorded.ABSENT_18]})
    restic(runner, source, user="holdfast").cat_config()
    assert runner.calls[0]["environment"] == {}
    assert runner.calls[0]["files"] == {"RESTIC_PASSWORD_FILE": b"pw", "RESTIC_REPOSITORY_FILE": b"/srv/r"}
    assert runner.calls[0]["user"] == "holdfast"


def test_the_time_is_for_everything_together() -> None:
    now = [0.0]
    runner = Runner({"cat": [recorded.config()] * 3})
    adapter = Restic(REMOTE, binary="restic", timeout=30, runner=runner, clock=lambda: now[0])
    for now[0] in (0.0, 20.0, 50.0):
        adapter.cat_config()
    assert [call["timeout"] for call in runner.calls] == [30, 10, 0.1]


def test_nothing_secret_is_in_argv() -> None:
    runner = Runner({"cat": [recorded.config()]})
    restic(runner).cat_config()
    assert "sesame" not in " ".join(runner.calls[0]["argv"])


def test_program_that_cannot_be_run() -> None:
    def runner(*_args: object, **_kwargs: object) -> Result:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(EngineError, match="/usr/bin/restic cannot be run: Permission denied"):
        Restic(REMOTE, binary="/usr/bin/restic", timeout=1, runner=runner).version()


def test_version_of_something_else() -> None:
    with pytest.raises(EngineError, match="does not tell its version"):
        restic(Runner({"version": [Result(0, "GNU coreutils")]})).version()
    assert restic(Runner({"version": [recorded.VERSION_14]})).version() == (0, 14, 0)


def test_find_binary() -> None:
    assert find_binary("sh").endswith("/sh")
    assert find_binary("/bin/sh") == "/bin/sh"
    with pytest.raises(MissingBinaryError, match="binary: 'no-such-tool' is not installed"):
        find_binary("no-such-tool")


# --- what an answer means --------------------------------------------------------------------------------------------

PANIC = "panic: runtime error: slice bounds out of range [16:5]\n\ngoroutine 1 [running]:\n"
ONE_KEY = "a file in keys/ is not a key: remove it where the repository lies, or open with the key on record"
TROUBLE = "the store is overloaded, or has an error of its own"
CONFIG = "config or a key is damaged: restore it from a copy"


def failed(text: str, code: int = 1) -> Result:
    return Result(code, "", text)


@pytest.mark.parametrize(
    ("result", "state", "reason"),
    [
        (recorded.config(), "present", None),
        (recorded.REFUSED_KEY, "unreachable", "the SSH server refused this host's key"),
        (recorded.REFUSED_KEY_SFTP, "unreachable", "the SSH server refused this host's key"),
        (recorded.S3_WRONG_SECRET, "unreachable", "the store refuses this host's credentials"),
        (recorded.S3_WRONG_KEY, "unreachable", "the store refuses this host's credentials"),
        (recorded.S3_DENIED, "unreachable", "the store refuses this host's credentials"),
        (recorded.S3_NO_BUCKET, "unreachable", "the bucket does not exist"),
        (recorded.S3_EXPIRED, "unreachable", "the store refuses this host's credentials"),
        (recorded.S3_SLOW_14, "unreachable", TROUBLE),
        (recorded.S3_SLOW, "unreachable", TROUBLE),
        (recorded.S3_TROUBLE, "unreachable", TROUBLE),
        (recorded.S3_NO_LOCK, "unreachable", TROUBLE),
        (recorded.STORE_NO_LOCK, "unreachable", "HTTP 500"),
        (recorded.STORE_TROUBLE_14, "unreachable", "HTTP 500"),
        (recorded.STORE_TROUBLE, "unreachable", "HTTP 500"),
        (recorded.STORE_EXPIRED, "unreachable", "the store behind the server refuses the server's credentials"),
        (recorded.OTHER_HOST_KEY, "unreachable", "the SSH server has another host key than the pinned one"),
        (recorded.NO_HOST_KEY, "unreachable", "the SSH server has another host key than the pinned one"),
        (recorded.NO_SSHD, "unreachable", "no SSH server listens there"),
        (recorded.NO_NAME, "unreachable", "the host name does not resolve"),
        (recorded.NO_ANSWER, "unreachable", "the server does not answer"),
        (recorded.MAINTENANCE, "unreachable", "the server has it in maintenance"),
        (
            recorded.DIRECTORY_GONE,
            "unreachable",
            "the server says: web1--second: the directory /srv/x is not there: is its disk mounted?",
        ),
        (recorded.EXPIRED, "unreachable", "the SSH connection could not be made"),
        (recorded.EXPIRED_SFTP, "unreachable", "the SSH connection could not be made"),
        (recorded.ABSENT_18, "absent", NO_REPOSITORY),
        (recorded.ABSENT_14, "absent", NO_REPOSITORY),
        (recorded.ABSENT_14_REST, "absent", NO_REPOSITORY),
        (recorded.WRONG_KEY_18, "wrong_key", WRONG),
        (recorded.WRONG_KEY_14, "wrong_key", WRONG),
        (
            failed("Fatal: Resolving password failed: Fatal: /p does not exist\n"),
            "wrong_key",
            "the password file cannot be used",
        ),
        (failed("x", 11), "locked", "the repository is locked"),
        (
            failed("unable to create lock in backend: repository is already locked by PID 1 on vm by root\n"),
            "locked",
            "the repository is locked",
        ),
        (recorded.REFUSED_14, "unreachable", "connection refused"),
        (recorded.REFUSED_18, "unreachable", "connection refused"),
        (
            failed(
                "Stat(<config/>) failed: unexpected HTTP response (401): 401 Unauthorized\n"
                "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized\n"
                "Is there a repository at the following location?\nrest:http://u:***@h/u/\n"
            ),
            "unreachable",
            "HTTP 401: the server refused user or password",
        ),
        (
            failed("Fatal: x: unexpected HTTP response (403): 403 Forbidden"),
            "unreachable",
            "HTTP 403: the server refused user or password",
        ),
        (retried("unexpected HTTP response (400): 400 Bad Request"), "unreachable", "HTTP 400"),
        (
            retried(
                'Head "https://u:***@h/u/config": tls: failed to verify certificate: x509: certificate signed by unknown authority'
            ),
            "unreachable",
            "TLS: certificate signed by unknown authority",
        ),
        (retried('Head "https://h/": remote error: tls: handshake failure'), "unreachable", "TLS: handshake failure"),
        (
            retried('Head "https://h/u/config": http: server gave HTTP response to HTTPS client'),
            "unreachable",
            "TLS: the server speaks plain HTTP",
        ),
        (retried("dial tcp: lookup nosuch.invalid: no such host"), "unreachable", "the host name does not resolve"),
        (
            failed(
                "subprocess ssh: ssh: Could not resolve hostname nosuch.invalid: Name or service not known\nFatal: EOF"
            ),
            "unreachable",
            "the host name does not resolve",
        ),
        (retried("dial tcp 192.0.2.1:8000: i/o timeout"), "unreachable", "the server does not answer"),
        (retried("Come back tomorrow."), "unreachable", "Come back tomorrow."),
        (
            failed("Fatal: unable to open config file: stat /r/config: permission denied\n"),
            "unreachable",
            "permission denied",
        ),
        (Result(-15, "", "", timed_out=True), "unreachable", "no answer within 30 s"),
        (Result(0, "{}", "", timed_out=True), "unreachable", "no answer within 30 s"),
        (Result(10, "", recorded.ABSENT_18.stderr, timed_out=True), "unreachable", "no answer within 30 s"),
        (Result(-15, "", recorded.REFUSED_18.stderr, timed_out=True), "unreachable", "connection refused"),
        (failed(PANIC, 2), "damaged", "restic crashed while opening it: config or a key is damaged"),
        (
            failed("config file has zero size, invalid repository?\nmain.open\n"),
            "damaged",
            "the config file is empty: restore it from a copy",
        ),
        (failed("Fatal: only supported KDF is scrypt()\n"), "damaged", ONE_KEY),
        (failed("Fatal: LoadRaw(<key/0000000000>): invalid data returned\n"), "damaged", ONE_KEY),
        (failed("Fatal: Unmarshal: invalid character 'j' looking for beginning of value\n"), "damaged", ONE_KEY),
        (failed(f"Fatal: config or key {KEY} is damaged: ciphertext verification failed\n"), "damaged", CONFIG),
        (failed("", 1), "unreachable", "no message"),
        (failed("Fatal: something new\n", 99), "unreachable", "unknown exit code 99: something new"),
        (failed("Fatal: interrupted\n", 130), "unreachable", "restic was interrupted: interrupted"),
    ],
)
def test_classify(result: Result, state: str, reason: str | None) -> None:
    assert classify(result, timeout=30) == (state, reason)


@pytest.mark.parametrize(
    "text",
    [
        # What a restic before 0.17 says is proof only if it says that and nothing else.
        "warning\n" + recorded.ABSENT_14.stderr,
        recorded.ABSENT_14.stderr + "and more\n",
        "Fatal: unable to open config file: <config/> does not exist\nsomething else\n",
        recorded.ABSENT_14.stderr.replace("no such file or directory", "stale file handle"),
        "Fatal: unable to open config file: Stat: The specified bucket does not exist\n",
    ],
)
def test_doubt_is_never_absent(text: str) -> None:
    assert classify(failed(text))[0] == "unreachable"


def test_old_words_with_another_exit_code_are_no_proof() -> None:
    assert classify(Result(77, "", recorded.ABSENT_14.stderr))[0] == "unreachable"


def test_absence_in_an_s3_bucket_as_old_versions_say_it() -> None:
    text = (
        f"Fatal: unable to open config file: Stat: The specified key does not exist.{recorded.QUESTION}s3:https://h/b\n"
    )
    assert classify(failed(text))[0] == "absent"


def test_reasons_hold_no_secret_and_are_one_short_line() -> None:
    text = "Fatal: \x1b[2Kfailed at https://user:pw@h/ with key-of-mine\tand " + "x" * 500
    _state, reason = classify(failed(text), secrets=["key-of-mine"])
    assert reason is not None
    assert reason.startswith("[2Kfailed at https://h/ with *** and xxx")
    assert len(reason) == 200


# --- look ------------------------------------------------------------------------------------------------------------


def test_look() -> None:
    runner = Runner({"cat": [recorded.config()]})
    assert restic(runner).look() == Look("present", id=ID, format_version=2)
    assert runner.commands == ["cat"]


def test_look_with_key() -> None:
    runner = Runner({"cat": [recorded.config()], "key": [recorded.keys()]})
    assert restic(runner).look(key=True) == Look("present", id=ID, format_version=2, key=KEY)
    assert runner.commands == ["cat", "key"]


def test_look_stops_at_the_first_bad_answer() -> None:
    runner = Runner({"cat": [recorded.WRONG_KEY_18]})
    assert restic(runner).look(key=True) == Look("wrong_key", WRONG)
    runner = Runner({"cat": [recorded.config()], "key": [recorded.REFUSED_18]})
    assert restic(runner).look(key=True) == Look("unreachable", "connection refused")


@pytest.mark.parametrize(
    "answer",
    [
        Result(0, "no json"),
        Result(0, "[]"),
        Result(0, "{}"),
        Result(0, '{"id": "a\\nb", "version": 2}'),
        Result(0, f'{{"id": "{ID}"}}'),
    ],
)
def test_config_that_is_none(answer: Result) -> None:
    with pytest.raises(EngineError, match="restic cat config did not answer"):
        restic(Runner({"cat": [answer]})).look()


@pytest.mark.parametrize("answer", ["[]", '[{"current": true, "id": "x\\ny"}]', '[{"current": false, "id": "94f5"}]'])
def test_no_current_key(answer: str) -> None:
    with pytest.raises(EngineError, match="which key the password opens"):
        restic(Runner({"cat": [recorded.config()], "key": [Result(0, answer)]})).look(key=True)


@pytest.mark.parametrize("answer", [recorded.ABSENT_18, recorded.ABSENT_14, recorded.WRONG_KEY_18])
def test_a_directory_without_config_but_with_keys_is_damaged(tmp_path: Path, answer: Result) -> None:
    (make(tmp_path) / "config").unlink()
    look = restic(Runner({"cat": [answer]}), Source(str(tmp_path), "/p")).look()
    assert look.state == "damaged"
    assert "no config file" in str(look.reason)


def test_a_directory_without_any_key_is_damaged(tmp_path: Path) -> None:
    (make(tmp_path) / "keys" / name(1)).unlink()
    look = restic(Runner({"cat": [recorded.WRONG_KEY_18]}), Source(str(tmp_path), "/p")).look()
    assert (look.state, look.reason) == ("damaged", "there is no key file: restore one from a copy or from the escrow")


def test_absent_and_wrong_key_stay_what_they_are(tmp_path: Path) -> None:
    source = Source(str(tmp_path), "/p")
    assert restic(Runner({"cat": [recorded.ABSENT_18]}), source).look().state == "absent"
    make(tmp_path)
    assert restic(Runner({"cat": [recorded.WRONG_KEY_18]}), source).look().state == "wrong_key"


def test_explain() -> None:
    adapter = restic(Runner({}))
    assert adapter.explain(Result(-15, timed_out=True)) == "no answer within 30 s"
    message = "Fatal: create repository at rest:http://u:sesame-open@h/ failed: sesame-open\n"
    assert adapter.explain(recorded.init_error(message)) == "create repository at rest:http://h/ failed: ***"


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_opens_twice() -> None:
    runner = Runner({"cat": [recorded.config()], "snapshots": [recorded.SNAPSHOTS]})
    found = restic(runner).inspect(now=NOW)
    assert runner.commands == ["cat", "snapshots"]
    assert found.to_dict() == {
        "location": "rest:http://h:8000/u/",
        "engine": "restic",
        "state": "present",
        "reason": None,
        "id": ID,
        "format_version": 2,
        "snapshots": {
            "count": 3,
            "last": {
                "id": recorded.SNAPSHOT,
                "time": "2026-11-21T12:55:37Z",
                "hostname": "vm",
                "paths": ["/tmp/f"],
                "username": "root",
                "tags": [],
                "total_bytes_processed": 4,
            },
        },
        "age_seconds": 60,
        "locks": None,
        "keys": None,
        "size": None,
        "modified": None,
    }


def test_inspect_opens_the_repository_once_if_its_id_is_known() -> None:
    runner = Runner({"snapshots": [recorded.NO_SNAPSHOTS]})
    found = restic(runner).inspect(known_id=ID, now=NOW)
    assert runner.commands == ["snapshots"]
    assert (found.locks, found.keys, found.size) == (None, None, None)
    assert (found.id, found.format_version, found.snapshots.count, found.age_seconds) == (ID, None, 0, None)


def test_inspect_gives_the_size_of_whatever_can_be_opened_and_what_is_cheaper() -> None:
    answers = {
        "cat": [recorded.config(), recorded.lock(), recorded.NO_LOCK],
        "snapshots": [recorded.SNAPSHOTS],
        "list": [recorded.ids(name(2), name(1)), recorded.ids(KEY)],
        "stats": [recorded.STATS],
    }
    runner = Runner(answers)
    found = restic(runner).inspect(now=NOW, size=True)
    assert (found.state, found.size, found.keys) == ("present", 419921, 1)
    # The second was removed before it could be read.
    assert found.locks == [Lock(131, False, "web1"), Lock()]
    asked = [each["argv"][each["argv"].index("--no-lock") + 1 :] for each in runner.calls]
    assert asked[2:] == [
        ["list", "locks"],
        ["cat", "lock", name(1)],
        ["cat", "lock", name(2)],
        ["list", "keys"],
        ["stats", "--mode", "raw-data", "--json"],
    ]


def test_a_size_that_takes_too_long_is_not_known_and_takes_nothing_else_away() -> None:
    late = Result(-15, timed_out=True)
    answers = {"snapshots": [recorded.SNAPSHOTS], "list": [late, recorded.ids("junk", KEY)], "stats": [late]}
    found = restic(Runner(answers)).inspect(known_id=ID, now=NOW, size=True)
    assert (found.state, found.locks, found.keys, found.size) == ("present", None, 1, None)
    answers = {
        "snapshots": [recorded.SNAPSHOTS],
        "list": [recorded.ids()] * 2,
        "stats": [Result(0, '{"total_size":"x"}')],
    }
    assert restic(Runner(answers)).inspect(known_id=ID, now=NOW, size=True).size is None


def test_only_some_locks_are_read() -> None:
    """They are rare, and each costs an opening."""
    many = [name(number) for number in range(9)]
    lists = [recorded.ids(*many), recorded.ids(KEY)]
    answers = {"snapshots": [recorded.SNAPSHOTS], "list": lists, "cat": [recorded.lock(True)] * 9}
    found = restic(Runner({**answers, "stats": [recorded.STATS]})).inspect(known_id=ID, now=NOW, size=True)
    assert found.locks == [Lock(131, True, "web1")] * 4 + [Lock()] * 5


@pytest.mark.parametrize("text", ["", "[]", '{"time": "yesterday"}', '{"time": 5, "exclusive": "no", "hostname": []}'])
def test_a_lock_that_says_nothing(text: str) -> None:
    answers = {"snapshots": [recorded.SNAPSHOTS], "cat": [Result(0, text)], "stats": [recorded.STATS]}
    runner = Runner({**answers, "list": [recorded.ids(name(1)), recorded.ids(KEY)]})
    assert restic(runner).inspect(known_id=ID, now=NOW, size=True).locks == [Lock()]


def test_inspect_asks_the_directory_of_a_local_one(tmp_path: Path) -> None:
    make(tmp_path, locks=1)
    answers = {"cat": [recorded.config(), recorded.lock()], "snapshots": [recorded.SNAPSHOTS]}
    runner = Runner({**answers, "list": [recorded.ids(name(1))]})
    found = restic(runner, Source(str(tmp_path), "/p")).inspect(now=NOW, size=True)
    # Locks that lie there are read, to tell who holds them.
    assert runner.commands == ["cat", "snapshots", "list", "cat"]
    assert found.locks == [Lock(131, False, "web1")]
    runner = Runner({"snapshots": [recorded.SNAPSHOTS], "list": [Result(1)]})
    found = restic(runner, Source(str(tmp_path), "/p")).inspect(known_id=ID, now=NOW, size=True)
    assert found.keys == 1
    assert found.locks is not None
    assert [lock.age_seconds for lock in found.locks] == [int(NOW - 1795265725 + 60)]
    assert found.size == 155 + 400 + 1000 + 200 + 30
    assert os.path.exists(tmp_path / "locks" / name(1))


def test_inspect_reports_a_state_without_opening_again() -> None:
    runner = Runner({"cat": [recorded.ABSENT_18]})
    found = restic(runner).inspect(now=NOW)
    assert runner.commands == ["cat"]
    assert found == Repository("rest:http://h:8000/u/", state="absent", reason=NO_REPOSITORY)


def test_many_locks_of_a_local_one_have_their_age(tmp_path: Path) -> None:
    make(tmp_path, locks=5)
    runner = Runner({"snapshots": [recorded.SNAPSHOTS]})
    found = restic(runner, Source(str(tmp_path), "/p")).inspect(known_id=ID, now=NOW)
    assert [each.exclusive for each in found.locks or []] == [None] * 5
    assert all(each.age_seconds for each in found.locks or [])


def test_inspect_asks_a_local_one_without_locks_nothing_more(tmp_path: Path) -> None:
    make(tmp_path)
    runner = Runner({"cat": [recorded.config()], "snapshots": [recorded.SNAPSHOTS]})
    found = restic(runner, Source(str(tmp_path), "/p")).inspect(now=NOW, size=True)
    assert (runner.commands, found.locks) == (["cat", "snapshots"], [])


def test_inspect_believes_the_second_answer() -> None:
    found = restic(Runner({"snapshots": [recorded.WRONG_KEY_18]})).inspect(known_id=ID, now=NOW)
    assert (found.state, found.id) == ("wrong_key", None)


@pytest.mark.parametrize("answer", [recorded.UNREADABLE_14, recorded.UNREADABLE_18])
def test_a_snapshot_that_cannot_be_read_is_damage(answer: Result) -> None:
    found = restic(Runner({"snapshots": [answer], "list": [recorded.ids()]})).inspect(known_id=ID, now=NOW)
    assert (found.state, found.reason) == ("damaged", "1 snapshot files cannot be read")


def test_snapshots_that_are_no_list() -> None:
    with pytest.raises(EngineError, match="restic snapshots did not answer in JSON"):
        restic(Runner({"snapshots": [Result(0, "")]})).inspect(known_id=ID, now=NOW)
