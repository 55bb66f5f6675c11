# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real S3 store on this machine: a directory that rclone serves."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or ""
USER = "AKID"
SECRET = "wJalrXUtnFEMIK7MDENG"


@contextlib.contextmanager
def serving(data: Path) -> Iterator[dict[str, str]]:
    """rclone's options of a remote that has the directories of `data` for buckets."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [RCLONE, "serve", "s3", "--addr", address, "--auth-key", f"{USER},{SECRET}", "--config", os.devnull]
    with subprocess.Popen([*command, str(data)], stderr=subprocess.DEVNULL) as process:
        try:
            for _attempt in range(600):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                        break
                time.sleep(0.1)
            else:
                raise TimeoutError(f"nothing answers at {address}")
            yield {
                "type": "s3", "provider": "Other", "access_key_id": USER, "secret_access_key": SECRET,
                "endpoint": f"http://{address}", "region": "us-east-1", "acl": "private", "force_path_style": "true",
            }  # fmt: skip
        finally:
            process.terminate()
