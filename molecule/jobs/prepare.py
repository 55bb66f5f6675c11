"""What a host has before holdfast: files for every option, canaries, databases. Runs on the host; JSON on standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys

told = json.load(sys.stdin)


def file(path: str, content: bytes = b"content", mode: int = 0o644) -> None:
    """Write a file, and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(content)
    os.chmod(path, mode)


def sql(program: list[str], *statements: str) -> None:
    """Ask a database."""
    subprocess.run(program, input="".join(f"{each};\n" for each in statements).encode(), check=True)


for path in told["odd"]:
    file(f"{path}/inside")
# A look-alike of what an unquoted path would match.
file("/srv/odd/globbed/inside")

file("/srv/options/kept.txt")
file("/srv/options/left.skip")
file("/srv/options/deep/er/left.skip")
file("/srv/options/no way/left.txt")
file("/srv/options/marked/.nobackup", b"")
file("/srv/options/marked/left.txt")
file("/srv/options/labelled/LABEL", b"leave this out\n")
file("/srv/options/labelled/left.txt")
file("/srv/options/otherwise/LABEL", b"no marker\n")
file("/srv/options/otherwise/kept.txt")
file("/srv/options/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")
file("/srv/options/cache/left.bin")
file("/srv/options/large.bin", os.urandom(1200 * 1024))
file("/srv/options/small.bin", os.urandom(800 * 1024))
os.makedirs("/srv/options/disk", exist_ok=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/srv/options/disk"], check=True)
file("/srv/options/disk/left.txt")
file("/srv/optional/there")
file("/srv/dropped in/there")
file("/srv/text/text", b"the same words again and again\n" * 60000)
file("/srv/random/random", os.urandom(24 * 1024 * 1024))
file("/srv/slow/random", os.urandom(40 * 1024 * 1024))

for path, mode in told["canaries"].items():
    file(path, f"canary of {path}\n".encode(), int(mode, 8))
for path in told["closed"]:
    os.chmod(path, 0)
user = told["canary_user"]
subprocess.run(["useradd", "--create-home", user], check=True)
os.makedirs(f"/home/{user}/own")
file(f"/home/{user}/own/canary", b"canary of a user\n", 0o600)
subprocess.run(["chown", "-R", f"{user}:", f"/home/{user}"], check=True)
os.chmod(f"/home/{user}", 0o700)

rows = "insert into fruit values (1, 'apple'), (2, 'pear''s \"ü\"'), (3, null)"
for database in ("app", "other"):
    sql(["runuser", "-u", "postgres", "--", "psql", "-qX"], f"create database {database}")
    sql(["runuser", "-u", "postgres", "--", "psql", "-qX", database], "create table fruit (id int, name text)", rows)
    sql(
        ["mariadb"],
        f"create database {database} character set utf8mb4",
        f"use {database}",
        "create table fruit (id int, name varchar(40))",
        rows,
    )
sql(["runuser", "-u", "postgres", "--", "psql", "-qX"], "create role clerk")
