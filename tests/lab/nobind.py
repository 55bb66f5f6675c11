"""The init of a host that allows no bind mounts: forbids them to itself and all that it starts, then becomes systemd.

Containers do so by an AppArmor profile, LXC for instance. systemd then cannot start units that have a sandbox of mounts.
It runs on the host, and is given to its Python as text.
"""

from __future__ import annotations

import ctypes
import os
import struct

SYSTEMD = "/usr/lib/systemd/systemd"
MOUNT = {"x86_64": 165, "aarch64": 40}
MS_REMOUNT, MS_BIND = 32, 4096
# The newer way to the same.
OPEN_TREE, OPEN_TREE_CLONE = 428, 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
# Where the kernel has the system call's number, and the low halves of its third and fourth argument, in bytes.
NUMBER, THIRD, FOURTH = 0, 32, 40
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_of(mount: int) -> bytes:
    """Refuse to bind; to change the options of what is bound already stays allowed. Jumps count what they leave out."""
    lines = (
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 1, 0, mount),
        (JUMP_IF_EQUAL, 3, 7, OPEN_TREE),
        (LOAD, 0, 0, FOURTH),
        (AND, 0, 0, MS_BIND | MS_REMOUNT),
        (JUMP_IF_EQUAL, 3, 4, MS_BIND),
        (LOAD, 0, 0, THIRD),
        (AND, 0, 0, OPEN_TREE_CLONE),
        (JUMP_IF_EQUAL, 0, 1, OPEN_TREE_CLONE),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    )
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def main() -> None:
    """Become systemd."""
    text = filter_of(MOUNT[os.uname().machine])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(text) // 8, text)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execv(SYSTEMD, [SYSTEMD])  # noqa: S606 - it becomes systemd itself, without a shell


if __name__ == "__main__":
    main()
