# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on the controller that its user asked for: in their place whole or not at all, and for their owner alone."""

from __future__ import annotations

import os
import stat
import tempfile


def check_place(option: str, path: str) -> None:
    """Raises ValueError that names the option where there is no directory for the file, or something that is none in its place."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ValueError(f"{option} = {path}: there is no directory {folder}. Make it, or give another place")
    # Not /dev/stdout, which root would replace, nor a pipe, which nobody writes into.
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise ValueError(f"{option} = {path}: is no file, and is not replaced by one. Give another place")


def write(path: str, content: bytes) -> None:
    """Put a file in its place, and replace what lies there. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".holdfast-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
