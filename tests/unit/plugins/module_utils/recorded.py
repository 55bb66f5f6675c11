# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic really said (0.14.0, 0.18.0 and 0.19.1 of Debian), a runner that says it again, and what it leaves on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.holdfast.backup.plugins.module_utils._run import Result

ID = "daf34a2235c48692629ad4d4485ba01d5023e19b3cd96fea4b5d79f3f5079bb2"
OTHER_ID = "a3b332fd02a92906968d4a21a64090bf17294aa42d32bfb03b1abbedffe2a2b8"
KEY = "9db01786350adf3c48306204cec7696155a12feedaf0186434dad57a10627db6"
OTHER_KEY = "f7ae05dcc3d6d7cfb18a3aa0b3c7eb94e8aba4e7770cf53c5d1b6528ac6d50c8"
SNAPSHOT = "f3dd8fcdf5affaa90b1b7e09788229b96b58a9a661d163ca31fc2078254d83a2"

VERSION_14 = Result(0, "restic 0.14.0 compiled with go1.19.8 on linux/amd64\n")
VERSION_18 = Result(0, "restic 0.18.0 compiled with go1.24.4 on linux/amd64\n")


def config(repository_id: str = ID) -> Result:
    text = f'{{\n  "version": 2,\n  "id": "{repository_id}",\n  "chunker_polynomial": "385f7958f947b1"\n}}\n'
    return Result(0, text)


def keys(key: str = KEY) -> Result:
    junk = {"current": False, "id": "94f5", "userName": "", "hostName": "", "created": "0001-01-01 00:00:00"}
    own = {"current": True, "id": key, "userName": "root", "hostName": "vm", "created": "2026-11-21 12:55:36"}
    return Result(0, json.dumps([junk, own]))


def ids(*names: str) -> Result:
    """What `list locks` and `list keys` answer."""
    return Result(0, "".join(f"{each}\n" for each in names))


def lock(exclusive: bool = False) -> Result:
    text = {"time": "2026-11-21T12:54:25.33783107Z", "exclusive": exclusive, "hostname": "web1", "username": "root"}
    return Result(0, json.dumps({**text, "pid": 2043}, indent=2) + "\n")


STATS = Result(0, '{"total_size":419921,"total_file_count":0,"total_blob_count":163,"snapshots_count":1}\n')
# Of a lock that its holder removed meanwhile.
NO_LOCK = Result(1, "", "Load(<lock/4904e26ed2>, 0, 0) returned error, retrying after 720ms: does not exist\n")


def initialized(repository_id: str = ID) -> Result:
    return Result(0, f'{{"message_type":"initialized","id":"{repository_id}","repository":"/srv/r"}}\n')


def init_error(message: str) -> Result:
    return Result(1, "", json.dumps({"message_type": "exit_error", "code": 1, "message": message}) + "\n")


# What restic 0.18.0 said of repositories over SSH, with OpenSSH 10.0.
TALKING = "Fatal: unable to open repository at rclone:holdfast:web1--offsite: error talking HTTP to rclone: {}\n"
SESSION = (
    "Fatal: unable to open repository at sftp:holdfast-second:/srv/holdfast-ssh/web1--second: unable to start the sftp session,"
    " error: error receiving version packet from server: {}\n"
)
REFUSED_KEY = Result(
    1, "", "rclone: bk-web1@192.0.2.1: Permission denied (publickey).\n" + TALKING.format("exit status 255")
)
REFUSED_KEY_SFTP = Result(
    1,
    "",
    "subprocess capsh: bk-web1@192.0.2.1: Permission denied (publickey).\n"
    + SESSION.format("server unexpectedly closed connection: unexpected EOF"),
)
# What the program serve says of a store that refuses it, and restic 0.18 after it.
STORE_REFUSES = Result(
    1,
    "",
    "rclone: holdfast: web1--offsite: the store refuses this server's credentials: sCode: 403, RequestID: , HostID: , api error"
    " Forbidden: Forbidden): operation error S3: ListObjects, https response error StatusCode: 403, RequestID: , HostID: , api"
    " error InvalidAccessKeyId: injected\n" + TALKING.format("signal: killed"),
)
# restic 0.18 in an S3 store that refuses it (rclone serve s3 1.75), ended after two tries.
S3_RETRY = "Stat(<config/>) returned error, retrying after 1.007310092s: Stat: {0}\n"
S3_WRONG_SECRET = Result(
    1,
    "",
    S3_RETRY.format(
        "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    ),
    stopped=True,
)
S3_WRONG_KEY = Result(
    1, "", S3_RETRY.format("The Access Key Id you provided does not exist in our records."), stopped=True
)
S3_NO_BUCKET = Result(1, "", S3_RETRY.format("The specified bucket does not exist"), stopped=True)
# What the library in restic says for a store that gives no words (Ceph), and AWS of a policy.
S3_DENIED = Result(1, "", "Fatal: unable to open config file: Stat: Access Denied.\n")
S3_NOT_PERMITTED = Result(
    1,
    "",
    "Fatal: unable to save snapshot: client.PutObject: User: arn:aws:iam::1:user/web1 is not authorized to perform: s3:PutObject"
    ' on resource: "arn:aws:s3:::b/web1/config" because no identity-based policy allows the s3:PutObject action\n',
)
S3_EXPIRED = Result(1, "", S3_RETRY.format("The provided token has expired."), stopped=True)
# A store that answers 503 and 500, to restic 0.14.0, 0.18.0 and 0.19.1.
S3_SLOW_14 = Result(
    1,
    "",
    "Fatal: unable to open config file: Stat: Please reduce your request rate.\nIs there a repository at the following location?\n"
    "s3:http://192.0.2.1:9000/bucket/r\n",
)
S3_SLOW = Result(1, "", S3_RETRY.format("Please reduce your request rate.") * 2, stopped=True)
S3_TROUBLE = Result(130, "", S3_RETRY.format("We encountered an internal error. Please try again.") * 2, stopped=True)
# It reads, and does not write: no other lock is there.
S3_NO_LOCK = Result(
    1,
    "",
    "Save(<lock/b2b011c9ba>) returned error, retrying after 39.138582121s: client.PutObject: Please reduce your request rate.\n"
    "Save(<lock/b2b011c9ba>) failed: client.PutObject: Please reduce your request rate.\n"
    '{"message_type":"exit_error","code":1,"message":"unable to create lock in backend: client.PutObject: Please reduce your request'
    ' rate."}\n',
)
# The same, and one whose credentials expire, behind a proxy of rclone.
PROXY_500 = "unexpected HTTP response (500): 500 Internal Server Error\n"
STORE_TROUBLE_14 = Result(
    1,
    "",
    f"Fatal: unable to open config file: {PROXY_500}Is there a repository at the following location?\nrclone:holdfast:x\n",
)
STORE_TROUBLE = Result(
    1, "", f"Stat(<config/>) returned error, retrying after 981.934524ms: {PROXY_500}" * 2, stopped=True
)
STORE_NO_LOCK = Result(
    1,
    "",
    "rclone: 2026/11/30 11:05:44 ERROR : locks/e972de3d: Post request rcat error: operation error S3: PutObject, exceeded maximum number"
    " of attempts, 1, https response error StatusCode: 503, RequestID: , HostID: , api error SlowDown: Please reduce your request rate.\n"
    f"Save(<lock/e972de3dea>) failed: {PROXY_500}"
    '{"message_type":"exit_error","code":1,"message":"unable to create lock in backend: unexpected HTTP response (500): 500 Internal'
    ' Server Error"}\n',
)
STORE_EXPIRED = Result(
    1,
    "",
    "rclone: holdfast: web1--offsite: the store refuses this server's credentials: f2097f1b7df7b8f267bb8: Post request: failed to check"
    " whether file exists: operation error S3: HeadObject, https response error StatusCode: 400, RequestID: , HostID: , api error"
    " BadRequest: Bad Request\n"
    'Save(<data/bd5f952490>) returned error, retrying after 1.226485113s: Post "http://localhost/data/bd5f952490": write |1: broken pipe\n'
    "Save(<data/bd5f952490>) failed: rclone stdio connection already closed\n"
    '{"message_type":"exit_error","code":1,"message":"Fatal: unable to save snapshot: rclone stdio connection already closed"}\n',
)
STORE_FULL = Result(
    1,
    "",
    "rclone: holdfast: web1--offsite: the store's quota is used up: faaea8: Post request put error: operation error S3: PutObject,"
    " https response error StatusCode: 403, RequestID: , HostID: , api error QuotaExceeded: injected\n"
    "Save(<lock/f5be1f57df>) failed: rclone stdio connection already closed\n"
    "unable to create lock in backend: rclone stdio connection already closed",
)
OTHER_HOST_KEY = Result(
    1,
    "",
    "rclone: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n"
    "rclone: @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
    "rclone: Host key verification failed.\n" + TALKING.format("exit status 255"),
)
NO_HOST_KEY = Result(
    1,
    "",
    "subprocess capsh: No ED25519 host key is known for holdfast-second and you have requested strict checking.\n"
    "subprocess capsh: Host key verification failed.\n"
    + SESSION.format("server unexpectedly closed connection: unexpected EOF"),
)
NO_SSHD = Result(
    1, "", "rclone: ssh: connect to host 192.0.2.1 port 2299: Connection refused\n" + TALKING.format("exit status 255")
)
NO_NAME = Result(
    1,
    "",
    "rclone: ssh: Could not resolve hostname nowhere.invalid: Name or service not known\n"
    + TALKING.format("exit status 255"),
)
NO_ANSWER = Result(
    1, "", "rclone: ssh: connect to host 192.0.2.1 port 22: Connection timed out\n" + TALKING.format("exit status 255")
)
MAINTENANCE = Result(
    1,
    "",
    "rclone: holdfast: web1--offsite is in maintenance: try again later\n" + TALKING.format("signal: killed"),
)
DIRECTORY_GONE = Result(
    1,
    "",
    "subprocess capsh: holdfast: web1--second: the directory /srv/x is not there: is its disk mounted?\n"
    + SESSION.format("server unexpectedly closed connection: unexpected EOF"),
)
EXPIRED = Result(1, "", TALKING.format("exit status 255"))
EXPIRED_SFTP = Result(1, "", SESSION.format("read |0: file already closed"))


SNAPSHOTS = Result(
    0,
    '[{"time":"2026-11-21T12:55:37.75338019Z","tree":"2288","paths":["/tmp/f"],"hostname":"vm","username":"root",'
    '"tags":["a","b"],"program_version":"restic 0.18.0","summary":{"total_bytes_processed":3},"id":"0b93","short_id":"0b"},'
    '{"time":"2026-11-21T12:55:37.906354163Z","parent":"0b93","tree":"2288","paths":["/tmp/f"],"hostname":"vm",'
    '"username":"root","program_version":"restic 0.18.0","summary":{"total_bytes_processed":4},'
    f'"id":"{SNAPSHOT}","short_id":"f3"}},'
    '{"time":"2026-11-21T13:00:00+01:00","tree":"2288","paths":null,"hostname":"old","username":"","id":"77","short_id":"7"}]\n',
)
NO_SNAPSHOTS = Result(0, "[]\n")
UNREADABLE_18 = Result(
    0,
    "[]\n",
    'Ignoring "0b93": failed to load snapshot 0b933d8a: LoadRaw(<snapshot/0b933d8a47>): invalid data returned\n',
)
UNREADABLE_14 = Result(
    0, "[]\n", "could not load snapshot 767091dd: load <snapshot/767091ddd9>: invalid data returned\n"
)

QUESTION = "\nIs there a repository at the following location?\n"
ABSENT_14 = Result(
    1, "", f"Fatal: unable to open config file: stat /srv/r/config: no such file or directory{QUESTION}/srv/r\n"
)
ABSENT_14_REST = Result(
    1, "", f"Fatal: unable to open config file: <config/> does not exist{QUESTION}rest:http://u:***@h:8000/u/\n"
)
ABSENT_18 = Result(
    10,
    "",
    "Fatal: repository does not exist: unable to open config file: stat /srv/r/config: no such file or directory"
    f"{QUESTION}/srv/r\n",
)
WRONG_KEY_14 = Result(1, "", "Fatal: wrong password or no key found\n")
WRONG_KEY_18 = Result(12, "", "Fatal: wrong password or no key found\n")
REFUSED_14 = Result(
    1,
    "",
    'Fatal: unable to open config file: client.Head: Head "http://u:***@127.0.0.1:1/x/config": dial tcp 127.0.0.1:1: '
    f"connect: connection refused{QUESTION}rest:http://u:***@127.0.0.1:1/x/\n",
)


def retried(message: str) -> Result:
    """Return what a restic says that was stopped when it began to try again."""
    lines = [f"Stat(<config/>) returned error, retrying after {seconds}: {message}" for seconds in ("854.2ms", "1.49s")]
    return Result(-15, "", "\n".join(lines) + "\n", stopped=True)


REFUSED_18 = retried('Head "http://u:***@127.0.0.1:1/x/config": dial tcp 127.0.0.1:1: connect: connection refused')


@dataclass
class Runner:
    """Answers each call with the next recorded result for its subcommand and remembers the call."""

    answers: Mapping[str, Sequence[Result]]
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], **arguments: Any) -> Result:
        command = next(word for word in argv if word in self.answers)
        number = sum(call["command"] == command for call in self.calls)
        self.calls.append({"command": command, "argv": list(argv), **arguments})
        return self.answers[command][number]

    @property
    def commands(self) -> list[str]:
        return [call["command"] for call in self.calls]


NOW = 1795265725.0


def name(number: int) -> str:
    return f"{number:064x}"


def make(path: Path, snapshots: int = 2, locks: int = 0) -> Path:
    """Make what restic makes, as far as names and sizes go; snapshot n is written n hours before now, lock n minutes."""
    for part in ("data/00", "index", "keys", "locks", "snapshots"):
        (path / part).mkdir(parents=True)
    (path / "config").write_bytes(b"c" * 155)
    (path / "keys" / name(1)).write_bytes(b"k" * 400)
    (path / "data/00" / name(2)).write_bytes(b"d" * 1000)
    (path / "index" / name(3)).write_bytes(b"i" * 200)
    for kind, count, unit in (("snapshots", snapshots, 3600), ("locks", locks, 60)):
        for number in range(1, count + 1):
            file = path / kind / name(number)
            file.write_bytes(b"s" * 10)
            os.utime(file, (NOW - number * unit, NOW - number * unit))
    return path
