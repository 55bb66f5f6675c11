# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What borg really said (1.2.4 and 1.4.0 of Debian), and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ansible_collections.holdfast.backup.plugins.module_utils._run import Result

ID = "16faab85541322c03f238dd171d7bb85ddf6aaaa01e4cc5f72561fd376e73438"
OTHER_ID = "9cade4256a9269b670dbf8668f0a9d34352bbfd464e03e2e93bb0568c83b05a1"
BLOB = "hqlhbGdvcml0aG2mc2hhMjU2pGRhdGHaAZ6wJ9KQaTmutG4nuinADNZt/1HwfzVJ1hafb6\npWLpksCBocozQw+ndmVyc2lvbgE=\n"
EXPORTED = f"BORG_KEY {ID}\n{BLOB}"
KEY = hashlib.sha256(EXPORTED.encode()).hexdigest()
NOW = 1795278500.0

VERSION_14 = Result(0, "borg 1.4.0\n")
VERSION_12 = Result(0, "borg 1.2.4\n")


def archive(name: str, second: int, **more: str) -> dict[str, str]:
    time = f"2026-11-21T16:21:{second:02d}.000000"
    return {
        "archive": name,
        "barchive": name,
        "id": f"{second:064x}",
        "name": name,
        "start": time,
        "time": time,
        **more,
    }


def listing(*archives: dict[str, str], repository_id: str = ID) -> Result:
    about = {"id": repository_id, "last_modified": "2026-11-21T16:21:24.000000", "location": "/srv/r1"}
    content = {"archives": list(archives), "encryption": {"mode": "repokey-blake2"}, "repository": about}
    return Result(0, json.dumps(content, indent=4) + "\n")


def error(code: int, name: str, text: str, *before: str) -> Result:
    """Borg 1.4's words; of 1.2 the code is 2 whatever happened."""
    last = {"type": "log_message", "time": 1795278080.4, "message": text, "levelname": "ERROR", "name": "borg.archiver"}
    lines = [*before, json.dumps({**last, "msgid": name})]
    return Result(code, "", "\n".join(lines) + "\n")


def remote(text: str) -> str:
    return json.dumps(
        {"type": "log_message", "time": 1.0, "message": f"Remote: {text}", "levelname": "WARNING", "name": "root"}
    )


ABSENT = error(13, "Repository.DoesNotExist", "Repository /srv/nothing does not exist.")
NO_CONFIG = error(15, "Repository.InvalidRepository", "/srv/r is not a valid repository. Check repo config.")
# A server's borg names it shorter, and the code says nothing.
REMOTE_NO_CONFIG = error(
    2, "InvalidRepository", "/srv/holdfast-ssh/web1--a is not a valid repository. Check repo config."
)
WRONG = error(
    52, "PassphraseWrong", "passphrase supplied in BORG_PASSPHRASE, by BORG_PASSCOMMAND or via … is incorrect."
)
OCCUPIED = error(10, "Repository.AlreadyExists", "A repository already exists at /srv/d1.")
LOCKED = error(73, "LockTimeout", "Failed to create/acquire the lock /srv/r1/lock.exclusive (timeout).")
MOVED = error(
    62,
    "Cache.RepositoryAccessAborted",
    "Repository access aborted",
    '{"type": "question_prompt", "msgid": "BORG_RELOCATED_REPO_ACCESS_IS_OK", "message": "Warning: The repository at'
    ' location /srv/r1b was previously located at /srv/r1\\nDo you want to continue? [yN] "}',
    '{"type": "question_accepted_false", "msgid": "BORG_RELOCATED_REPO_ACCESS_IS_OK", "message": "Aborting."}',
)
CLOSED = error(
    81,
    "ConnectionClosedWithHint",
    "Connection closed by remote host. Is borg working on the server?",
    remote("ssh: Could not resolve hostname nohost.invalid: Name or service not known"),
)
# What borg 1.4.0 says of an archive that borg 1.2.4 renamed.
INVALID_TAM = error(95, "ArchiveTAMInvalid", "Data integrity error: Archive authentication did not verify")
NO_TAM = error(96, "ArchiveTAMRequiredError", "Archive 'x' is unauthenticated, but it is required for this archive.")
DENIED = Result(
    2,
    "",
    '{"type": "log_message", "time": 1.1, "message": "Local Exception", "levelname": "ERROR", "name": "borg.archiver",'
    ' "msgid": "Exception"}\n{"type": "log_message", "time": 1.1, "message": "Traceback (most recent call last):\\n  File'
    ' \\"/usr/lib/python3/dist-packages/borg/archiver.py\\", line 5391, in main\\nPermissionError: [Errno 13] Permission'
    ' denied: \'/srv/r1x/config\'\\n", "levelname": "ERROR", "name": "borg.archiver"}\n',
)


def make(path: Path, *, key: bool = True, transaction: int = 9) -> Path:
    """Make what borg makes, as far as names go; the last transaction was ten seconds before now."""
    (path / "data/0").mkdir(parents=True)
    (path / "README").write_text("This is a Borg Backup repository.\n")
    lines = ["[repository]", "version = 1", "segments_per_dir = 1000", "append_only = 0", f"id = {ID}"]
    lines += ["key = hqlhbGdvcml0aG2mc2hh", "\tpWLpksCBocozQw+n"] if key else []
    (path / "config").write_text("\n".join([*lines, "", ""]))
    for number in range(transaction + 1):
        (path / "data/0" / str(number)).write_bytes(b"s" * 17)
    for name in ("index", "hints", "integrity"):
        file = path / f"{name}.{transaction}"
        file.write_bytes(b"x" * 10)
        os.utime(file, (NOW - 10, NOW - 10))
    return path
