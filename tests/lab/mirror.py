"""A mirror of tool releases, laid out like upstream's, made of Debian's own packages.

The binaries of Debian's restic, rest-server and rclone run on older releases of Debian too; repacked under
upstream's file names they let tests install a pinned release without the Internet. restic's packages themselves lie
there too, as somebody's own apt repository. What few tests need is made when it is asked for: an index of wheels, and a
borg in one file.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
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
# Of which packages borg's one file is made, by suite; Python's extensions in it are for bookworm.
BORG = {"bookworm-backports": "borgbackup", "bookworm": "python3-msgpack python3-packaging"}
BORG_FILE = "borg-linux-glibc236"
BORG_MAIN = """\
import atexit, shutil, sys, tempfile, zipfile
folder = tempfile.mkdtemp(prefix="_MEI")
atexit.register(shutil.rmtree, folder, True)
with zipfile.ZipFile(sys.argv[0]) as packed:
    packed.extractall(folder)
sys.path[0] = folder
from borg.archiver import main
main()
"""
# What pip takes on a host: wheels for bookworm's Python and C library.
WHEELS = (
    "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311",
    "--platform=manylinux_2_17_x86_64", "--platform=manylinux2014_x86_64",
)  # fmt: skip


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
            binary = (_unpack(package) / tool.binary).read_bytes()
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


def borg() -> Release:
    """A borg in one file, in place of upstream's single binary, which cannot be had here; made once.

    It is Debian's own, and unpacks itself into TMPDIR at each start, as upstream's does. But it takes the host's Python, which
    upstream's carries along.
    """
    recipe = hashlib.sha256(json.dumps([BORG, BORG_MAIN]).encode()).hexdigest()[:12]
    index = CACHE / f"mirror/borg/{recipe}.json"
    with locked(CACHE / ".borg.lock", timeout=600, what="the download of borg"):
        if index.exists():
            return Release(**json.loads(index.read_text()))
        scratch = CACHE / ".borg-building"
        shutil.rmtree(scratch, ignore_errors=True)
        files: dict[str, bytes] = {"__main__.py": BORG_MAIN.encode()}
        version = ""
        for suite, names in BORG.items():
            for name, package in download(scratch / suite, suite, names.split()).items():
                if name == "borgbackup":
                    version = upstream_version(run(["dpkg-deb", "--field", str(package), "Version"]).stdout)
                modules = _unpack(package) / "usr/lib/python3/dist-packages"
                for each in sorted(modules.rglob("*")):
                    if each.is_file():
                        files[str(each.relative_to(modules))] = each.read_bytes()
        content = io.BytesIO(b"#!/usr/bin/python3\n")
        content.seek(0, io.SEEK_END)
        with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as packed:
            for name, data in files.items():
                packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        path = f"borg/{version}/{BORG_FILE}"
        (CACHE / "mirror" / path).parent.mkdir(parents=True, exist_ok=True)
        (CACHE / "mirror" / path).write_bytes(content.getvalue())
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        made = Release("borg", version, "amd64", "bookworm-backports", path, digest, digest)
        write_atomic(index, json.dumps(asdict(made)), 0o644)
        shutil.rmtree(scratch, ignore_errors=True)
        return made


def wheels(requirements: Path) -> str:
    """The URL of an index of the wheels that a requirements file names, each with its hash; downloaded once."""
    digest = hashlib.sha256(json.dumps([requirements.read_text(), WHEELS]).encode()).hexdigest()[:12]
    name = f"wheels/{digest}"
    with locked(CACHE / ".wheels.lock", timeout=600, what="the download of wheels"):
        if not (CACHE / "mirror" / name).exists():
            scratch = CACHE / f".wheels-{digest}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *WHEELS]
            run([*command, f"--dest={scratch}", f"--requirement={requirements}"], timeout=300)
            for wheel in scratch.glob("*.whl"):
                # The server lists a directory as an index would.
                project = scratch / re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
                project.mkdir()
                wheel.rename(project / wheel.name)
            (CACHE / "mirror/wheels").mkdir(parents=True, exist_ok=True)
            scratch.rename(CACHE / "mirror" / name)
    return f"{MIRROR_NAME_URL}{name}/"


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


def _unpack(package: Path) -> Path:
    target = package.with_suffix(".files")
    run(["dpkg-deb", "--extract", str(package), str(target)], timeout=120)
    return target
