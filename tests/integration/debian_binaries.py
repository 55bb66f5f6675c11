# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs out of Debian's packages of several releases, side by side, without installing anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.lab.archive import find_archive, kept_settings

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 300


def _run(argv: list[str], directory: Path) -> None:
    environment = {**os.environ, "APT_CONFIG": str(directory / "apt.conf")}
    done = subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"


def program(cache: Path, suite: str, package: str, name: str) -> str:
    """Return the path of the program `name` in `package` of a Debian release, downloaded into `cache` the first time."""
    directory = cache / suite / package
    path = directory / "root/usr/bin" / name
    if path.exists():
        return str(path)
    for part in ("state/lists/partial", "archives/partial", "empty"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "state/status").touch()
    sources = [line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) for line in find_archive().sources(suite)]
    (directory / "sources.list").write_text("\n".join([*sources, ""]))
    settings = [
        f'Dir::State "{directory}/state";',
        f'Dir::State::status "{directory}/state/status";',
        f'Dir::Cache "{directory}";',
        f'Dir::Etc::sourcelist "{directory}/sources.list";',
        f'Dir::Etc::sourceparts "{directory}/empty";',
        f'Dir::Etc::preferencesparts "{directory}/empty";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        *kept_settings(),
    ]
    (directory / "apt.conf").write_text("\n".join([*settings, ""]))
    _run(["apt-get", "-q", "update"], directory)
    _run(["apt-get", "-q", "download", package], directory)
    (archive,) = directory.glob("*.deb")
    _run(["dpkg-deb", "-x", str(archive), str(directory / "unpacking")], directory)
    os.rename(directory / "unpacking", directory / "root")
    return str(path)
