"""Puts one of every odd file into the places where data hides. Runs on a test host as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess

PLACES = ["/home", "/root", "/tmp", "/var/tmp", "/srv/other"]
NAMES = [
    b"new\nline", b"quote\"'", b"percent %n %%", b"dollar $HOME ${x}", b"back\\slash", b"-leading dash", b"glob*[a]?",
    "ünïcödé ☃".encode(), b"invalid \xff\xfe utf-8", b"trailing space ", b" leading", b"tab\tulator", b"x" * 255, b"#;&|<>()`!",
]  # fmt: skip


def write(path: bytes, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    os.utime(path, ns=(1_000_000_000_123_456_789, 1_100_000_000_987_654_321))


def plant(place: str) -> None:
    root = os.fsencode(f"{place}/canary")
    os.makedirs(root, exist_ok=True)
    for number, name in enumerate(NAMES):
        write(root + b"/" + name, name * (number + 1))
    write(root + b"/mode-0000", b"nobody may read this", 0o000)
    private = root + b"/private"
    os.mkdir(private, 0o700)
    write(private + b"/diary", b"dear diary", 0o600, 1234, 1234)
    os.chown(private, 1234, 1234)
    write(root + b"/setuid", b"#!/bin/true\n", 0o4755, 1, 1)
    write(root + b"/setgid", b"#!/bin/true\n", 0o2755, 1, 1)
    os.mkdir(root + b"/sticky")
    os.chmod(root + b"/sticky", 0o3777)  # noqa: S103 - odd modes are what is to be saved
    write(root + b"/one-name", b"hard")
    os.link(root + b"/one-name", root + b"/another-name")
    os.symlink(b"nowhere/at all\n", root + b"/dangling")
    os.symlink(b"mode-0000", root + b"/link")
    os.mkfifo(root + b"/fifo", 0o640)
    with open(root + b"/sparse", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
        file.truncate(6_000_000)
    write(root + b"/random", os.urandom(300_000), 0o640, 33, 33)
    write(root + b"/capable", b"\x7fELF", 0o755)
    write(root + b"/listed", b"acl", 0o640)
    write(root + b"/empty", b"")
    text = os.fsdecode(root)
    subprocess.run(["setcap", "cap_net_raw+ep", f"{text}/capable"], check=True)
    subprocess.run(["setfacl", "-m", "u:daemon:rw,g:games:r", f"{text}/listed"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:daemon:rwx", f"{text}/sticky"], check=True)
    if place != "/tmp":  # a tmpfs of older kernels takes no user attributes
        os.setxattr(root + b"/empty", b"user.mood", b"good\0\xff")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(root)
        server.bind("socket")
    os.chmod(root, 0o750)  # noqa: S103 - a mode that a restore has to bring back
    if place == "/srv/other" and shutil.which("chattr"):
        # Where the host may: it is no part of a snapshot, and must not keep the file out of it.
        subprocess.run(["chattr", "+i", f"{text}/random"], check=False)


ODD = [
    "with space", "quote\" and '", "percent %n %% %h", "dollar $HOME ${PATH} $$", "back\\slash\\x41", "-dash", "new\nline",
    "tab\tulator", "glob*[a]?", "ünïcödé ☃", "#hash; semicolon && true", "trailing space ", "@at +plus !bang -minus",
]  # fmt: skip
# What a careless reading of the paths above would also, or instead, save.
DECOYS = ["globXa1", "percent", "with", "back", "new", "quote", "trailing space"]


def main() -> None:
    """Canaries in all places that are there, directories with odd names, and what the failing jobs take."""
    for place in PLACES:
        if os.path.isdir(place):
            with contextlib.suppress(FileNotFoundError):
                subprocess.run(["chattr", "-R", "-i", f"{place}/canary"], stderr=subprocess.DEVNULL, check=False)
            shutil.rmtree(f"{place}/canary", ignore_errors=True)
            plant(place)
    os.chdir("/")
    for name in [*ODD, *DECOYS]:
        os.makedirs(f"/srv/odd/{name}", exist_ok=True)
        write(os.fsencode(f"/srv/odd/{name}/file"), os.fsencode(name))
    raw = b"/srv/odd/invalid \xff utf-8"
    os.makedirs(raw, exist_ok=True)
    write(raw + b"/file", b"raw")
    os.makedirs("/srv/good", exist_ok=True)
    write(b"/srv/good/file", b"good")
    os.makedirs("/srv/big", exist_ok=True)
    write(b"/srv/big/file", os.urandom(60_000_000))
    if os.path.isdir("/srv/bad"):
        # Files of one blob: restic 0.19.1 may panic on a larger one of which it cannot read the end.
        for number in range(100):
            write(b"/srv/bad/%d" % number, os.urandom(400_000))
        os.sync()


if __name__ == "__main__":
    main()
