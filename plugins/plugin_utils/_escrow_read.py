# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens escrow bundles on the controller, with the secret key that its user names."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t

KEYS = ("password", "rest_password", "environment")
AGE_SECONDS = 60


def secrets_of(directory: str, repositories: t.Sequence[str], key: str | None) -> dict[str, dict[str, t.Any]]:
    """The secrets of each repository out of its newest bundle; ``directory`` is the host's in the state directory.

    A bundle made after init (it knows the repository's id) wins over one made before. Raises ValueError with the cure
    when a bundle is missing or cannot be opened; the message never holds a secret.
    """
    result = {}
    for repository in repositories:
        place = os.path.join(directory, "escrow", repository)
        names = sorted(os.listdir(place)) if os.path.isdir(place) else []
        if not names:
            raise ValueError(
                f"the state directory has no escrow bundle of {repository} ({place}). Use the state directory that this"
                " client was provisioned with, or a copy of it"
            )
        opened = [(name, _open(os.path.join(place, name), key)) for name in names]
        best = max(opened, key=lambda each: (each[1].get("repository_id") is not None, os.path.getmtime(os.path.join(place, each[0]))))[1]
        result[repository] = {name: best[name] for name in KEYS if best.get(name)}
    return result


def _open(path: str, key: str | None) -> dict[str, t.Any]:
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as bundle:
            return dict(json.load(bundle))
    if not key:
        raise ValueError("escrow_key: is missing. Give the file of the secret key that age-keygen made: -e escrow_key=/path/to/backup-escrow.key")
    if not os.path.isfile(key):
        raise ValueError(f"escrow_key = {key!r}: is not a file. Give the file of the secret key that age-keygen made")
    try:
        done = subprocess.run(["age", "--decrypt", "--identity", key, path], capture_output=True, check=False, timeout=AGE_SECONDS)
    except FileNotFoundError:
        raise ValueError("age is not installed on this controller, and opens the escrow: apt install age") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"age did not open {path} within {AGE_SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"escrow_key = {key!r}: age cannot open {path} with it: {said[0]}")
    return dict(json.loads(done.stdout))
