# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs out of Debian's packages of several releases, side by side, without installing anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.archive import download
from tests.lab.shell import run


def program(cache: Path, suite: str, package: str, name: str) -> str:
    """Return the path of the program `name` in `package` of a Debian release, downloaded into `cache` the first time."""
    directory = cache / suite / package
    path = directory / "root/usr/bin" / name
    if not path.exists():
        shutil.rmtree(directory, ignore_errors=True)
        archive = download(directory, suite, [package])[package]
        run(["dpkg-deb", "-x", str(archive), str(directory / "unpacking")], timeout=120)
        (directory / "unpacking").rename(directory / "root")
    return str(path)
