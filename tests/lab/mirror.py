"""A mirror of tool releases, laid out like upstream's, made of Debian's own packages.

The binaries of Debian's restic, rest-server and rclone run on older releases of Debian too; repacked under
upstream's file names they let tests install a pinned release without the Internet. restic's packages themselves lie
there too, as somebody's own apt repository.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .archive import download
from .services import MIRROR_NAME_URL, MIRROR_URL, MIRROR_URL6
from .shell import LabError, run
from .state import CACHE, locked, write_atomic


@dataclass(frozen=True)
class Tool:
    """How upstream names and packs a tool, and what Debian calls it."""

    name: str
    package: str
    binary: str
    file: str
    pack: Callable[[str, str, bytes], bytes]


@dataclass(frozen=True)
class Release:
    """One file of the mirror."""

    tool: str
    version: str
    architecture: str
    suite: str
    path: str
    sha256: str
    binary_sha256: str


def pack_bz2(_stem: str, _name: str, binary: bytes) -> bytes:
    """restic: the bare program, compressed."""
    return bz2.compress(binary)


def pack_tar(stem: str, name: str, binary: bytes) -> bytes:
    """rest-server: a directory with the program in a tar file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(f"{stem}/{name}")
        member.size, member.mode = len(binary), 0o755
        archive.addfile(member, io.BytesIO(binary))
    return gzip.compress(stream.getvalue(), mtime=0)


def pack_zip(stem: str, name: str, binary: bytes) -> bytes:
    """rclone: a directory with the program in a zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(f"{stem}/{name}", (1980, 1, 1, 0, 0, 0))
        member.external_attr = 0o755 << 16
        member.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(member, binary)
    return stream.getvalue()


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "restic", "restic", "usr/bin/restic",
            "restic_{version}_linux_{architecture}.bz2", pack_bz2,
        ),
        Tool(
            "rest-server", "restic-rest-server", "usr/bin/restic-rest-server",
            "rest-server_{version}_linux_{architecture}.tar.gz", pack_tar,
        ),
        Tool(
            "rclone", "rclone", "usr/bin/rclone",
            "rclone-v{version}-linux-{architecture}.zip", pack_zip,
        ),
    )
}  # fmt: skip
# Which package of which suite becomes a release.
WANTED = (
    ("restic", "sid"),
    ("restic", "trixie"),
    ("rest-server", "sid"),
    ("rest-server", "trixie"),
    ("rclone", "sid"),
)
# The flat apt repository, and of which tool it has the packages.
APT_REPOSITORY, APT_TOOL = "debian", "restic"


def upstream_version(package_version: str) -> str:
    """`1:1.75.2+dfsg-1+b3` is upstream's 1.75.2."""
    match = re.match(r"\A(?:\d+:)?(\d+(?:\.\d+)+)", package_version)
    if match is None:
        raise LabError(f"'{package_version}' does not look like a version; see mirror.py.")
    return match[1]


def describe() -> dict[str, Any]:
    """Where the mirror is and what it holds; built when it is not there."""
    return {
        "url": MIRROR_URL,
        "url6": MIRROR_URL6,
        "url_by_name": MIRROR_NAME_URL,
        "apt": f"{MIRROR_NAME_URL}{APT_REPOSITORY}/",
        "releases": [asdict(release) for release in build()],
    }


def build(*, again: bool = False) -> list[Release]:
    """Make the mirror unless it is there."""
    root = CACHE / "mirror"
    index = root / "index.json"
    with locked(CACHE / ".mirror.lock", timeout=600, what="the build of the mirror"):
        if index.exists() and (root / APT_REPOSITORY / "Release").exists() and not again:
            return [Release(**item) for item in json.loads(index.read_text())]
        scratch = CACHE / ".mirror-building"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            releases = _build(scratch, root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        write_atomic(index, json.dumps([asdict(release) for release in releases]), 0o644)
        return releases


def _build(scratch: Path, root: Path) -> list[Release]:
    root.mkdir(exist_ok=True)
    root.chmod(0o755)
    architecture = run(["dpkg", "--print-architecture"]).stdout.strip()
    releases: dict[str, Release] = {}
    own = []
    for suite in dict.fromkeys(suite for _tool, suite in WANTED):
        names = [name for name, wanted in WANTED if wanted == suite]
        packages = download(scratch / suite, suite, [TOOLS[name].package for name in names])
        for name in names:
            tool = TOOLS[name]
            package = packages[tool.package]
            if name == APT_TOOL:
                own.append(package)
            version = upstream_version(run(["dpkg-deb", "--field", str(package), "Version"]).stdout)
            binary = _extract(package, tool.binary)
            file = tool.file.format(version=version, architecture=architecture)
            stem = file.removesuffix(".tar.gz").removesuffix(".zip")
            content = tool.pack(stem, name, binary)
            digest = hashlib.sha256(content).hexdigest()
            target = root / name / f"v{version}"
            target.mkdir(parents=True, exist_ok=True)
            (target / file).write_bytes(content)
            (target / "SHA256SUMS").write_text(f"{digest}  {file}\n")
            path = f"{name}/v{version}/{file}"
            plain = hashlib.sha256(binary).hexdigest()
            releases[path] = Release(name, version, architecture, suite, path, digest, plain)
    write_apt_repository(root / APT_REPOSITORY, own)
    return list(releases.values())


def write_apt_repository(directory: Path, packages: Sequence[Path]) -> None:
    """A flat apt repository of these packages, not signed: `deb [trusted=yes] URL ./`."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    stanzas = []
    for package in packages:
        content = package.read_bytes()
        (directory / package.name).write_bytes(content)
        control = run(["dpkg-deb", "--field", str(package)]).stdout.strip()
        digest = hashlib.sha256(content).hexdigest()
        stanzas.append(f"{control}\nFilename: ./{package.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    index = "\n".join(stanzas).encode()
    (directory / "Packages").write_bytes(index)
    digest = hashlib.sha256(index).hexdigest()
    (directory / "Release").write_text(f"Suite: own\nSHA256:\n {digest} {len(index)} Packages\n")


def _extract(package: Path, member: str) -> bytes:
    target = package.with_suffix(".files")
    run(["dpkg-deb", "--extract", str(package), str(target)], timeout=120)
    return (target / member).read_bytes()
