# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Upstream release archives: which format, and the one program inside."""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from typing import IO, cast

FORMATS = ("bz2", "tar.gz", "zip", "binary")
MAXIMUM_SIZE = 512 * 1024 * 1024


def format_of(url: str) -> str:
    """Return the format that the end of a URL says."""
    name = posixpath.basename(url.split("?", 1)[0].split("#", 1)[0])
    if name.endswith((".tar.gz", ".tgz")):
        return "tar.gz"
    if name.endswith(".bz2") and not name.endswith(".tar.bz2"):
        return "bz2"
    if name.endswith(".zip"):
        return "zip"
    if posixpath.splitext(name)[1] in (".xz", ".tar", ".gz", ".bz2", ".zst", ".7z", ".deb", ".rpm"):
        raise ValueError(f"url {url!r} has a format that cannot be unpacked: use one of {', '.join(FORMATS)}")
    return "binary"


def unpack(archive: bytes, form: str, member: str | None) -> bytes:
    """Return the program in a (verified) archive.

    ``member`` is its path inside, or its base name when that occurs once; it is needed for tar.gz and zip. Raises
    ValueError when the archive is damaged, has no such file or more than one, or is larger than MAXIMUM_SIZE.
    """
    try:
        if form == "binary":
            return archive
        if form == "bz2":
            return _bounded(cast(IO[bytes], bz2.BZ2File(io.BytesIO(archive))))
        if not member:
            raise ValueError(f"member is needed to unpack {form}: give the name of the program in the archive")
        if form == "zip":
            with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                names = [info.filename for info in packed.infolist() if not info.is_dir()]
                with packed.open(_choose(names, member)) as stream:
                    return _bounded(stream)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            files = [info for info in tar.getmembers() if info.isreg()]
            chosen = _choose([info.name for info in files], member)
            packed_file = tar.extractfile(chosen)
            if packed_file is None:
                raise ValueError(f"member {member!r} is not a regular file")
            return _bounded(packed_file)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"the archive is not a sound {form}: {error}: check url, sha256 and format") from None


def _bounded(stream: IO[bytes]) -> bytes:
    content = stream.read(MAXIMUM_SIZE + 1)
    if len(content) > MAXIMUM_SIZE:
        raise ValueError(f"the program is larger than {MAXIMUM_SIZE} bytes: this is not a release of a backup tool")
    return content


def _choose(names: list[str], member: str) -> str:
    if member in names:
        return member
    found = [name for name in names if posixpath.basename(name) == member]
    if len(found) != 1:
        what = "is not in the archive" if not found else f"is there more than once ({', '.join(found)})"
        raise ValueError(f"member {member!r} {what}: it has {', '.join(sorted(names)[:20])}")
    return found[0]
