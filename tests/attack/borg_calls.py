# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls that borg's own client would not make, on a test host as root: python3 borg_calls.py ATTACK PATH COMMAND...

COMMAND is what leads to `borg serve`, PATH the repository as the server takes it. Prints, for each call, its name and the
class of the error that it was answered with ("" for none). borg serve understands msgpack, which borg depends on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack

JUNK = b"\0" * 200


class Session:
    """One `borg serve`, and what it answered."""

    def __init__(self, path: str, command: list[str]) -> None:
        self.path = path
        self.command = command
        self.answers: list[tuple[str, str]] = []
        self._serve = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        # Names and ids alike are bytes: borg writes the old format, in which they are the same.
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        self.call("negotiate", client_data={"client_version": (1, 4, 0)})

    def call(self, method: str, **arguments: Any) -> Any:
        """Call, and return the result, None for an error."""
        assert self._serve.stdin is not None
        assert self._serve.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # borg 1.2 takes nothing else than the old format.
            asked = {"i": len(self.answers), "m": method, "a": arguments}
            self._serve.stdin.write(msgpack.packb(asked, use_bin_type=False))
            self._serve.stdin.flush()
        while True:
            for answer in self._unpacker:
                error = answer.get(b"exception_class", b"").decode()
                self.answers.append((method, error))
                return None if error else answer[b"r"]
            data = os.read(self._serve.stdout.fileno(), 65536)
            if not data:
                self.answers.append((method, "closed"))
                return None
            self._unpacker.feed(data)

    def open(self, *, create: bool = False, **others: Any) -> None:
        """Open the repository for writing, or as `others` say."""
        wishes = {"lock_wait": 5, "lock": True, "exclusive": True, "append_only": False, "make_parent_dirs": False}
        self.call("open", path=self.path, create=create, **{**wishes, **others})

    def another(self, **wishes: Any) -> Session:
        """Another session, beside this one."""
        made = Session(self.path, self.command)
        made.open(**wishes)
        return made

    def commit(self) -> None:
        """Commit, and free what is not used any more."""
        self.call("commit", save_space=False, compact=True, threshold=0, cleanup_commits=True)

    def close(self) -> None:
        """End the session as borg does."""
        assert self._serve.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._serve.stdin.close()
        self._serve.wait(timeout=30)


def _make(session: Session) -> None:
    session.open(create=True)
    for number in range(5):
        session.call("put", id=bytes([number]) * 32, data=os.urandom(1000))
    session.commit()


def _delete_what_it_made(session: Session) -> None:
    """In the same session, of which borg forgets that it is append-only, since it began with a create."""
    _make(session)
    for each in session.call("list", limit=1000) or ():
        session.call("delete", id=each)
    session.commit()


def _open(session: Session) -> None:
    session.open()


def _create(session: Session) -> None:
    session.open(create=True)


def _destroy(session: Session) -> None:
    session.open()
    session.call("destroy")


def _destroy_after_create(session: Session) -> None:
    """A repository that is to be created is none that --append-only is remembered for, and it stays open."""
    session.open(create=True)
    session.call("destroy")


def _delete(session: Session) -> None:
    session.open()
    for each in session.call("list", limit=1000) or ():
        session.call("delete", id=each)
    session.commit()


def _overwrite(session: Session) -> None:
    session.open()
    for each in session.call("list", limit=1000) or ():
        session.call("put", id=each, data=JUNK)
    session.commit()


def _fill(session: Session) -> None:
    """Go on after each refusal, and leave it uncommitted."""
    session.open()
    for number in range(40):
        session.call("put", id=bytes([number]) * 32, data=os.urandom(1_000_000))


def _fill_with_files(session: Session) -> None:
    """The manifest begins a file, and so does the deletion of the one before it."""
    session.open()
    for _number in range(900):
        session.call("put", id=bytes(32), data=b"")


SAVED = [bytes([200 + number]) * 32 for number in range(3)]


def _save(session: Session) -> None:
    for each in SAVED:
        session.call("put", id=each, data=os.urandom(100_000))
    session.commit()


def _what_is_left(session: Session) -> None:
    """Ask for all that `_save` committed, in a session of its own; the last answers."""
    reads = session.another(lock=False)
    for each in SAVED:
        reads.call("get", id=each)
    reads.close()
    session.answers += reads.answers[2:]


def _before_others_saved(session: Session) -> None:
    """Begin to write before others save, and wait for a lock: borg deletes whatever was committed meanwhile.

    Who asks for no kind of lock gets one for reading, and another one when it writes, after borg has looked for the last commit.
    """
    session.open(exclusive=None, lock_wait=60)
    session.call("list", limit=1)
    breaks = session.another(lock=False)
    breaks.call("break_lock")
    breaks.close()
    saves = session.another()
    waits = threading.Thread(target=session.call, args=("put",), kwargs={"id": b"\7" * 32, "data": JUNK})
    waits.start()
    time.sleep(2)
    _save(saves)
    saves.close()
    waits.join()
    _what_is_left(session)


def _while_others_save(session: Session) -> None:
    """Begin to write while others do, with no lock: borg deletes what they have not committed yet, and they do not notice."""
    saves = session.another()
    for each in SAVED:
        saves.call("put", id=each, data=os.urandom(100_000))
    session.open(lock=False)
    waits = threading.Thread(target=session.call, args=("put",), kwargs={"id": b"\7" * 32, "data": JUNK})
    waits.start()
    time.sleep(2)
    saves.commit()
    saves.close()
    waits.join()
    _what_is_left(session)


def _with_files_of_before(session: Session) -> None:
    """Keep segments open that nobody committed: borg sees those, where others have committed new ones of the same number."""
    leaves = session.another(lock=False)
    # The manifest begins a segment.
    for _number in range(6):
        leaves.call("put", id=bytes(32), data=JUNK)
    leaves.close()
    session.open(lock=False)
    session.call("scan")
    saves = session.another()
    _save(saves)
    saves.close()
    session.call("put", id=b"\7" * 32, data=JUNK)
    _what_is_left(session)


def _key(session: Session) -> None:
    """One that goes on as another option of the repository's configuration."""
    session.open()
    session.call("save_key", keydata=b"QUJD\rappend_only = 0")


ATTACKS: dict[str, Callable[[Session], None]] = {
    "make": _make,
    "delete what it made": _delete_what_it_made,
    "open": _open,
    "create": _create,
    "destroy": _destroy,
    "destroy after create": _destroy_after_create,
    "delete": _delete,
    "overwrite": _overwrite,
    "fill": _fill,
    "fill with files": _fill_with_files,
    "before others saved": _before_others_saved,
    "while others save": _while_others_save,
    "with files of before": _with_files_of_before,
    "key": _key,
}


def main(attack: str, path: str, *command: str) -> None:
    """Make the calls of an attack."""
    session = Session(path, list(command))
    ATTACKS[attack](session)
    session.close()
    print(json.dumps(session.answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
