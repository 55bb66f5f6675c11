# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong in a module, as its one message."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Iterator

from ._files import UnsafePathError


@contextlib.contextmanager
def told(module: t.Any, *own: type[Exception], place: str = "writing") -> Iterator[None]:
    """Fail the module with what a step raises: our errors (`own` are the module's) as they are, those of the system with
    the file, or `place`, and the cure."""
    ours: tuple[type[Exception], ...] = (ValueError, UnsafePathError, TimeoutError, *own)
    try:
        yield
    except ours as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or place}: {error.strerror}: mend this and run again")
