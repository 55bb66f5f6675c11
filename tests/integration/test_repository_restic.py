# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`repository` and `repository_info` with real restics and a real rest-server: what is there is the proof."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _repositories

from tests.integration.cheap_key import make_cheap
from tests.integration.debian_binaries import program

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
REST_PASSWORD = "p@ss%word"
REST_PASSWORD_IN_URL = "p%40ss%25word"
SECONDS = 120
Prepare = Callable[..., None]
MODULES = "ansible_collections.holdfast.backup.plugins.modules"


@dataclass(frozen=True)
class Tools:
    """Programs of several Debian releases."""

    cache: Path

    def restic(self, suite: str) -> str:
        return program(self.cache, suite, "restic", "restic")

    @property
    def server(self) -> str:
        return program(self.cache, "trixie", "restic-rest-server", "restic-rest-server")


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> Tools:
    return Tools(Path(request.config.cache.mkdir("debian-binaries")))


@pytest.fixture(params=["trixie", "sid"])
def restic(request: pytest.FixtureRequest, tools: Tools) -> str:
    """restic 0.18 and 0.19."""
    return tools.restic(request.param)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `prepare` keeps what it copies."""
    return tmp_path_factory.mktemp("templates")


@pytest.fixture
def prepare(templates: Path, place: Path, restic: str) -> Prepare:
    """Put an empty repository there as restic makes it, that opens at once: where init is not what is tested."""

    def run_once(name: str = "vault") -> None:
        made = templates / hashlib.sha256(restic.encode()).hexdigest()
        if not made.exists():
            run(restic, place, "init", location=str(made))
            make_cheap(made, PASSWORD)
        shutil.copytree(made, place / name, dirs_exist_ok=True)

    return run_once


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other accounts may enter, with a password file that they may not read."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-", dir="/var/tmp"))
    path.chmod(0o755)
    password = path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o400)
    yield path
    shutil.rmtree(path)


def module(name: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Run a module in a process of its own, without HOME."""
    done = subprocess.run(
        [sys.executable, "-m", f"{MODULES}.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}),
        env={"PYTHONPATH": str(ROOT / ".collections"), "PATH": "/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout.lstrip().startswith("{"), done.stderr
    assert PASSWORD not in done.stdout
    assert REST_PASSWORD not in done.stdout
    assert REST_PASSWORD_IN_URL not in done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def entry(place: Path, binary: str, name: str = "vault", **options: Any) -> dict[str, Any]:
    defaults = {
        "name": name,
        "password_file": str(place / "password"),
        "binary": binary,
        "record": str(place / "records" / f"{name}.env"),
    }
    location = {} if "repository_file" in options else {"repository": str(place / name)}
    return {**defaults, **location, **options}


def bring(*entries: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
    return module("repository", {"repositories": list(entries), **options}, check=check)


def info(place: Path, binary: str, **options: Any) -> dict[str, Any]:
    arguments = {"password_file": str(place / "password"), "binary": binary, **options}
    if not {"repository", "repository_file"} & set(options):
        arguments["repository"] = str(place / "vault")
    result = module("repository_info", arguments)
    assert "failed" not in result, result
    assert result["changed"] is False
    found: dict[str, Any] = result["repository"]
    return found


def run(binary: str, place: Path, *arguments: str, location: str | None = None, **environment: str) -> str:
    """Run restic itself, as somebody on the host would."""
    done = subprocess.run(
        [binary, "--no-cache", "-r", location or str(place / "vault"), *arguments],
        env={"PATH": "/usr/bin:/bin", "RESTIC_PASSWORD_FILE": str(place / "password"), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout


def fingerprint(path: Path) -> dict[str, tuple[int, str]]:
    """Return time of change and hash of everything below `path`."""
    return {
        str(each): (each.lstat().st_mtime_ns, hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "")
        for each in sorted(path.rglob("*"))
    }


def spy(place: Path, binary: str) -> str:
    """Return a program that notes arguments and environment of each call, then becomes `binary`."""
    path = place / "spy"
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {place}/argv\nenv > {place}/environment\nexec {binary} "$@"\n',
    )
    path.chmod(0o755)
    return str(path)


def calls(place: Path) -> list[str]:
    """Return the calls since the last time."""
    path = place / "argv"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


# --- local -----------------------------------------------------------------------------------------------------------


def test_from_nothing_to_converged(place: Path, restic: str) -> None:
    wanted = entry(place, spy(place, restic))
    checked = bring(wanted, check=True)
    assert (checked["changed"], checked["repositories"][0]["action"]) == (True, "init")
    assert not (place / "vault").exists()
    assert not (place / "records").exists()

    made = bring(wanted)
    assert (made["changed"], made["repositories"][0]["action"]) == (True, "init")
    config = json.loads(run(restic, place, "cat", "config"))
    assert made["repositories"][0]["id"] == config["id"]
    assert f"HOLDFAST_REPOSITORY_ID={config['id']}\n" in (place / "records/vault.env").read_text()
    (key,) = os.listdir(place / "vault/keys")
    assert f"RESTIC_KEY_HINT={key}\n" in (place / "records/vault.env").read_text()
    assert not any(PASSWORD in call for call in calls(place))
    assert PASSWORD not in (place / "environment").read_text()

    before = fingerprint(place)
    for check in (False, True):
        again = bring(wanted, check=check)
        assert again["changed"] is False
    assert fingerprint(place) == before
    assert calls(place) == []
    assert bring(wanted, verify=True)["repositories"][0]["state"] == "present"
    assert len(calls(place)) == 2


def test_info_of_a_local_repository_agrees_with_and_without_key(place: Path, restic: str, prepare: Prepare) -> None:
    assert info(place, restic)["state"] == "absent"
    prepare()
    bring(entry(place, restic))
    (place / "source").mkdir()
    for number in range(3):
        (place / "source/file").write_bytes(os.urandom(1000) + b"x" * number)
        run(restic, place, "-q", "backup", "--host", "web1", "--tag", f"t{number}", str(place / "source"))
    before = fingerprint(place / "vault")
    binary = spy(place, restic)
    found = info(place, binary, size=True)
    assert [line.split("--no-lock ")[1] for line in calls(place)] == ["cat config", "snapshots --json"]
    recorded = info(place, binary, size=True, record=str(place / "records/vault.env"))
    assert [line.split("--no-lock ")[1] for line in calls(place)] == ["snapshots --json"]
    keyless = module("repository_info", {"repository": str(place / "vault"), "keyless": True, "size": True})[
        "repository"
    ]
    assert fingerprint(place / "vault") == before

    listed = json.loads(run(restic, place, "snapshots", "--json"))
    last = found["snapshots"]["last"]
    assert found["state"] == "present"
    assert found["format_version"] == 2
    assert found["snapshots"]["count"] == len(listed) == 3
    assert last["id"] == listed[-1]["id"]
    assert (last["hostname"], last["paths"], last["username"]) == ("web1", [str(place / "source")], "root")
    assert (last["tags"], last["total_bytes_processed"]) == (["t2"], 1002)
    assert 0 <= found["age_seconds"] < 60
    assert (found["keys"], found["locks"]) == (1, [])
    files = [path for path in (place / "vault").rglob("*") if path.is_file()]
    assert found["size"] == sum(path.stat().st_size for path in files)
    assert {**recorded, "format_version": 2, "age_seconds": found["age_seconds"]} == found
    assert (keyless["snapshots"]["count"], keyless["snapshots"]["last"]["id"]) == (3, last["id"])
    assert (keyless["keys"], keyless["locks"], keyless["size"]) == (1, [], found["size"])


def test_info_waits_for_no_lock_and_takes_none(place: Path, restic: str, prepare: Prepare) -> None:
    prepare()
    holder = subprocess.Popen(
        [restic, "--no-cache", "-q", "-r", str(place / "vault"), "backup", "--stdin"],
        env={"PATH": "/usr/bin:/bin", "RESTIC_PASSWORD_FILE": str(place / "password")},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        # Another name than its id is that of a lock which is not whole yet.
        while not (locks := [name for name in os.listdir(place / "vault/locks") if len(name) == 64]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(locks) == 1
        found = info(place, restic)
        assert found["state"] == "present"
        (lock,) = found["locks"]
        assert (lock["exclusive"], lock["hostname"]) == (False, socket.gethostname())
        assert 0 <= lock["age_seconds"] < 120
        assert os.listdir(place / "vault/locks") == locks
    finally:
        holder.kill()
        holder.communicate()


def test_an_existing_repository_is_adopted_and_never_initialised_again(
    place: Path, restic: str, prepare: Prepare
) -> None:
    prepare()
    before = fingerprint(place / "vault")
    assert bring(entry(place, restic, adopt=False))["failed"] is True
    result = bring(entry(place, restic))
    assert result["repositories"][0]["action"] == "adopt"
    assert fingerprint(place / "vault") == before
    assert result["repositories"][0]["id"] == json.loads(run(restic, place, "cat", "config"))["id"]


def test_a_replaced_repository_is_an_error(place: Path, restic: str, prepare: Prepare) -> None:
    wanted = entry(place, restic)
    old = bring(wanted)["repositories"][0]["id"]
    shutil.rmtree(place / "vault")
    gone = bring(wanted, verify=True)
    assert f"says that repository {old} was here" in gone["msg"]
    assert not (place / "vault").exists()
    prepare()
    new = json.loads(run(restic, place, "cat", "config"))["id"]
    record = (place / "records/vault.env").read_text()
    replaced = bring(wanted, verify=True)
    assert f"it has the id {new}, but the record {place}/records/vault.env says {old}" in replaced["msg"]
    assert (place / "records/vault.env").read_text() == record


def test_a_wrong_password_is_not_a_reason_to_initialise(place: Path, restic: str, prepare: Prepare) -> None:
    prepare()
    before = fingerprint(place / "vault")
    (place / "password").write_text("another one")
    assert info(place, restic)["state"] == "wrong_key"
    result = bring(entry(place, restic))
    assert "vault" in result["msg"]
    assert "wrong_key" in result["msg"]
    assert fingerprint(place / "vault") == before


@pytest.mark.parametrize("what", ["config missing", "config empty", "config short", "keys missing"])
def test_damage_is_not_absence(place: Path, restic: str, prepare: Prepare, what: str) -> None:
    prepare()
    config = place / "vault/config"
    config.chmod(0o600)
    if what == "config missing":
        config.unlink()
    elif what == "keys missing":
        shutil.rmtree(place / "vault/keys")
    else:
        config.write_text("" if what == "config empty" else "junk")
    before = fingerprint(place / "vault")
    assert info(place, restic)["state"] == "damaged"
    result = bring(entry(place, restic))
    assert "is damaged" in result["msg"]
    assert fingerprint(place / "vault") == before


def test_junk_among_the_keys_does_not_keep_the_recorded_key_from_opening(
    place: Path, restic: str, prepare: Prepare
) -> None:
    wanted = entry(place, restic)
    prepare()
    bring(wanted)
    directory = place / "vault/keys"
    (key,) = os.listdir(directory)
    # restic tries the keys in the directory's order, and the junk has to come first.
    for number in range(1000):
        if os.listdir(directory)[0] != key:
            break
        junk = f'{{"kdf":"{number}"}}'.encode()
        (directory / hashlib.sha256(junk).hexdigest()).write_bytes(junk)
    assert info(place, restic)["state"] == "damaged"
    assert info(place, restic, record=str(place / "records/vault.env"))["state"] == "present"


def test_three_runs_at_once_make_one_repository(place: Path, restic: str) -> None:
    wanted = [entry(place, restic, "one"), entry(place, restic, "two")]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _number: bring(*wanted), range(3)))
    for index, name in enumerate(("one", "two")):
        actions = sorted(result["repositories"][index]["action"] for result in results)
        ids = {result["repositories"][index]["id"] for result in results}
        assert actions == ["init", "none", "none"]
        assert ids == {json.loads(run(restic, place, "cat", "config", location=str(place / name)))["id"]}
        assert len(os.listdir(place / name / "keys")) == 1


def test_a_local_repository_belongs_to_its_account(place: Path, restic: str) -> None:
    target = place / "vault"
    target.mkdir(mode=0o700)
    shutil.chown(target, "nobody", "nogroup")
    # Debian's packages are unpacked where only root may look.
    binary = place / "restic"
    shutil.copy(restic, binary)
    result = bring(entry(place, str(binary), user="nobody"))
    assert "failed" not in result, result
    assert result["repositories"][0]["action"] == "init"
    assert {path.owner() for path in target.rglob("*")} == {"nobody"}
    assert bring(entry(place, str(binary), user="nobody"), verify=True)["changed"] is False


def owners(target: Path) -> set[str]:
    return {path.owner() for path in [target, *target.rglob("*")]}


def test_a_local_repository_is_given_to_another_account(place: Path, restic: str, prepare: Prepare) -> None:
    """And back; restic then writes to it as that account, and the runs after change nothing."""
    target = place / "vault"
    prepare()
    for path in [target, *target.rglob("*")]:
        shutil.chown(path, "nobody", "nogroup")
    binary = place / "restic"
    shutil.copy(restic, binary)
    binary.chmod(0o755)
    bring(entry(place, str(binary), user="nobody"))
    for user in ("root", "nobody"):
        wanted = entry(place, str(binary), user=user)
        before = owners(target)
        checked = bring(wanted, check=True)
        assert (checked["changed"], checked["repositories"][0]["action"]) == (True, "own")
        assert owners(target) == before != {user}
        result = bring(wanted)
        assert (result["changed"], result["repositories"][0]["action"]) == (True, "own"), result
        assert owners(target) == {user}
        assert bring(wanted)["changed"] is False
        assert bring(wanted, check=True)["changed"] is False
        assert bring(wanted, verify=True)["changed"] is False
        # Whoever adopts a repository owns it, too.
        (place / "records/vault.env").unlink()
        shutil.chown(target / "config", "daemon")
        assert bring(wanted)["repositories"][0]["action"] == "adopt"
        assert owners(target) == {user}


@pytest.mark.parametrize("plant", ["symlink", "hard link", "directory link", "fifo"])
def test_nothing_outside_is_given_away(place: Path, restic: str, prepare: Prepare, plant: str) -> None:
    """The account that has the repository until now may put what it likes there."""
    wanted = entry(place, restic, user="root")
    prepare()
    bring(wanted)
    for path in [place / "vault", *(place / "vault").rglob("*")]:
        shutil.chown(path, "nobody")
    outside = place / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("x")
    shutil.chown(outside / "shadow", "daemon")
    shutil.chown(outside, "daemon")
    planted = place / "vault/data/00/planted"
    planted.parent.mkdir(exist_ok=True)
    if plant == "fifo":
        os.mkfifo(planted)
    elif plant == "hard link":
        os.link(outside / "shadow", planted)
    else:
        planted.symlink_to(outside / "shadow" if plant == "symlink" else outside)
    result = bring(wanted)
    assert str(planted) in result["msg"], result
    assert owners(outside) == {"daemon"}
    # Not done, and the next run sees it.
    assert (place / "vault/config").owner() == "nobody"
    planted.unlink()
    assert bring(wanted)["repositories"][0]["action"] == "own"
    assert owners(place / "vault") == {"root"}


def test_chunker_parameters_and_format_are_taken_over(place: Path, restic: str, prepare: Prepare) -> None:
    prepare("first")
    other = {"repository": str(place / "first"), "password_file": str(place / "password")}
    bring(entry(place, restic, from_repo=other), entry(place, restic, "plain", repository_version="1"))
    first, second, plain = (
        json.loads(run(restic, place, "cat", "config", location=str(place / name)))
        for name in ("first", "vault", "plain")
    )
    assert first["chunker_polynomial"] == second["chunker_polynomial"] != plain["chunker_polynomial"]
    assert first["id"] != second["id"]
    assert (second["version"], plain["version"]) == (2, 1)


def test_a_missing_mount_is_not_an_empty_disk(place: Path, restic: str) -> None:
    mount = place / "disk"
    mount.mkdir()
    location = {"repository": str(mount / "vault"), "mount": str(mount)}
    assert "nothing is mounted on" in bring(entry(place, restic, **location))["msg"]
    assert list(mount.iterdir()) == []
    subprocess.run(["mount", "-t", "tmpfs", "none", str(mount)], check=True, timeout=10)
    try:
        assert bring(entry(place, restic, **location))["repositories"][0]["action"] == "init"
        assert info(place, restic, **location)["state"] == "present"
    finally:
        subprocess.run(["umount", str(mount)], check=True, timeout=10)
    assert info(place, restic, **location)["state"] == "unreachable"
    assert "nothing is mounted" in bring(entry(place, restic, **location), verify=True)["msg"]
    assert list(mount.iterdir()) == []


def test_the_old_restic_is_understood_and_never_initialises(place: Path, tools: Tools) -> None:
    old = tools.restic("bookworm")
    assert info(place, old)["state"] == "absent"
    refused = bring(entry(place, old))
    assert "restic 0.14.0 cannot prove absence" in refused["msg"]
    assert not (place / "vault").exists()
    run(old, place, "init")
    assert info(place, old)["state"] == "present"
    assert bring(entry(place, old))["repositories"][0]["action"] == "adopt"
    # The old version shows the beginning of a key's id only; the new one knows it again.
    assert bring(entry(place, tools.restic("trixie")), verify=True)["repositories"][0]["state"] == "present"
    (place / "vault/config").rename(place / "config")
    assert info(place, old)["state"] == "damaged"
    (place / "config").rename(place / "vault/config")
    (place / "password").write_text("another one")
    assert info(place, old)["state"] == "wrong_key"
    refused_port = info(place, old, repository=f"rest:http://127.0.0.1:{free_port()}/vault/")
    assert (refused_port["state"], refused_port["reason"]) == ("unreachable", "connection refused")


# --- rest-server -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A rest-server: append-only, private repositories, two users with one password, TLS with a CA of its own."""

    place: Path
    port: int
    scheme: str

    @property
    def data(self) -> Path:
        return self.place / "data"

    def location(
        self, user: str = "web1", password: str = REST_PASSWORD_IN_URL, path: str = "web1", scheme: str = ""
    ) -> str:
        """Return the name of a file with a location."""
        file = self.place / f"location-{user}-{len(password)}-{path}-{scheme}"
        file.write_text(f"rest:{scheme or self.scheme}://{user}:{password}@127.0.0.1:{self.port}/{path}/\n")
        file.chmod(0o400)
        return str(file)

    @property
    def trusted(self) -> dict[str, str]:
        return {"cacert": str(self.place / "ca.pem")} if self.scheme == "https" else {}


@contextlib.contextmanager
def serving(place: Path, binary: str, scheme: str) -> Iterator[Server]:
    server = Server(place, free_port(), scheme)
    server.data.mkdir()
    secret = bcrypt.hashpw(REST_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (place / "htpasswd").write_text(f"web1:{secret}\ndb1:{secret}\n")
    argv = [binary, "--listen", f"127.0.0.1:{server.port}", "--path", str(server.data), "--append-only"]
    argv += ["--private-repos", "--htpasswd-file", str(place / "htpasswd")]
    if scheme == "https":
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            + ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-keyout", str(place / "key.pem"), "-out", str(place / "ca.pem")],
            check=True,
            capture_output=True,
            timeout=30,
        )
        argv += ["--tls", "--tls-cert", str(place / "ca.pem"), "--tls-key", str(place / "key.pem")]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _attempt in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, place: Path, tools: Tools) -> Iterator[Server]:
    with serving(place, tools.server, request.param) as made:
        yield made


@pytest.fixture
def tls_server(place: Path, tools: Tools) -> Iterator[Server]:
    with serving(place, tools.server, "https") as made:
        yield made


def test_from_nothing_to_converged_on_a_rest_server(place: Path, restic: str, server: Server) -> None:
    location = {"repository_file": server.location(), **server.trusted}
    wanted = entry(place, spy(place, restic), **location)
    absent = info(place, restic, **location)
    assert (absent["state"], absent["location"]) == (
        "absent",
        f"rest:{server.scheme}://127.0.0.1:{server.port}/web1/",
    )
    assert bring(wanted, check=True)["repositories"][0]["action"] == "init"
    assert not (server.data / "web1").exists()
    made = bring(wanted)
    assert (made["changed"], made["repositories"][0]["action"]) == (True, "init")
    assert not any("web1:" in call for call in calls(place))
    assert bring(wanted)["changed"] is False
    assert calls(place) == []
    found = info(place, restic, record=str(place / "records/vault.env"), **location)
    assert (found["state"], found["id"]) == ("present", made["repositories"][0]["id"])
    # What would take more openings is asked for with the size only.
    assert (found["locks"], found["keys"], found["size"]) == (None, None, None)
    assert info(place, restic, **location)["locks"] is None
    sized = info(place, restic, size=True, **location)
    assert (sized["locks"], sized["keys"], sized["size"]) == ([], 1, 0)
    on_disk = module("repository_info", {"repository": str(server.data), "keyless": True})["repositories"]
    assert [(each["location"], each["state"]) for each in on_disk] == [(str(server.data / "web1"), "present")]


def test_refused_credentials_are_unreachable(place: Path, restic: str, tls_server: Server) -> None:
    for file in (tls_server.location(password="wrong"), tls_server.location(user="db1")):
        location = {"repository_file": file, **tls_server.trusted}
        found = info(place, restic, **location)
        assert (found["state"], found["reason"]) == ("unreachable", "HTTP 401: the server refused user or password")
        assert "HTTP 401" in bring(entry(place, restic, **location))["msg"]
    assert list(tls_server.data.iterdir()) == []


def test_a_server_that_is_not_trusted_gets_nothing(place: Path, restic: str, tls_server: Server) -> None:
    found = info(place, restic, repository_file=tls_server.location())
    assert found["state"] == "unreachable"
    assert found["reason"].startswith("TLS: certificate signed by unknown authority")
    found = info(place, restic, repository_file=tls_server.location(scheme="http"))
    assert (found["state"], found["reason"]) == ("unreachable", "HTTP 400")


def test_a_server_without_tls(place: Path, restic: str, tools: Tools) -> None:
    with serving(place, tools.server, "http") as server:
        found = info(place, restic, repository_file=server.location(scheme="https"))
    assert (found["state"], found["reason"]) == ("unreachable", "TLS: the server speaks plain HTTP")


def test_a_stopped_server_is_noticed_long_before_the_timeout(place: Path, restic: str) -> None:
    location = f"rest:http://web1:{REST_PASSWORD_IN_URL}@127.0.0.1:{free_port()}/web1/"
    found = info(place, restic, repository=location, timeout=60)
    assert (found["state"], found["reason"]) == ("unreachable", "connection refused")
    assert "is unreachable: connection refused" in bring(entry(place, restic, repository=location))["msg"]


def test_a_server_that_never_answers_costs_the_timeout(place: Path, restic: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        location = f"rest:http://127.0.0.1:{silent.getsockname()[1]}/web1/"
        found = info(place, restic, repository=location, timeout=3)
    assert time.monotonic() - started >= 3
    assert (found["state"], found["reason"]) == ("unreachable", "no answer within 3 s")


def test_a_name_that_does_not_resolve(place: Path, restic: str) -> None:
    found = info(place, restic, repository="rest:http://nosuch.invalid:8000/web1/", timeout=20)
    assert (found["state"], found["reason"]) == ("unreachable", "the host name does not resolve")


def test_keys_without_config_on_a_server_are_damage(place: Path, restic: str, tls_server: Server) -> None:
    location = {"repository_file": tls_server.location(), **tls_server.trusted}
    bring(entry(place, restic, **location))
    (tls_server.data / "web1/config").unlink()
    before = fingerprint(tls_server.data)
    (place / "records/vault.env").unlink()
    result = bring(entry(place, restic, **location))
    assert "is damaged: init failed" in result["msg"]
    assert result["repositories"][0]["state"] == "damaged"
    assert fingerprint(tls_server.data) == before


def test_three_runs_at_once_on_a_server(place: Path, restic: str, tls_server: Server) -> None:
    wanted = entry(place, restic, repository_file=tls_server.location(), **tls_server.trusted)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _number: bring(wanted), range(3)))
    assert sorted(result["repositories"][0]["action"] for result in results) == ["init", "none", "none"]
    assert len({result["repositories"][0]["id"] for result in results}) == 1
    assert len(os.listdir(tls_server.data / "web1/keys")) == 1


def test_many_at_once_with_one_that_fails(place: Path, tools: Tools, tls_server: Server) -> None:
    binary = tools.restic("trixie")
    result = bring(
        entry(place, binary, "web", repository_file=tls_server.location(), **tls_server.trusted),
        entry(place, binary, "bad", repository_file=tls_server.location(path="db1"), **tls_server.trusted),
        entry(place, binary, "disk"),
    )
    assert result["msg"].startswith("1 of 3 repositories cannot be used: bad (rest:https://127.0.0.1:")
    assert [(each["name"], each["action"], each["state"]) for each in result["repositories"]] == [
        ("web", "init", "present"),
        ("bad", "none", "unreachable"),
        ("disk", "init", "present"),
    ]


# --- what restic starts itself

# As a unit has it: an account with the capability to read every file.
CAPABLE = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
DAC_READ_SEARCH = 1 << 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rclone:remote:a b", "rclone"),
        ("sftp:host:/srv/a", "ssh"),
        ("sftp:user@realm@host:a", "ssh"),
        ("sftp://REALM%5Cuser@Host:2222//srv/a", "ssh"),
        ("sftp://[fe80::1%25eth0]//srv/a", "ssh"),
    ],
)
def test_an_own_location_is_dialled_as_by_restic_itself_without_the_capability(
    place: Path, restic: str, url: str, name: str
) -> None:
    """What it starts writes down its arguments and what it may; without our option it may what restic may."""
    said = place / "said"
    programs = place / "programs"
    programs.mkdir()
    (programs / name).write_text(f"#!/bin/sh\n{{ printf '%s\\n' \"$@\"; cat /proc/$$/status; }} >{said}/$1\nexit 1\n")
    (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "RESTIC_PASSWORD": PASSWORD}

    def started(options: dict[str, str]) -> tuple[list[str], set[int]]:
        said.mkdir()
        said.chmod(0o777)
        words = [f"--option={key}={value}" for key, value in options.items()]
        subprocess.run(
            [*CAPABLE.split(), restic, "--no-cache", f"--repo={url}", *words, "cat", "config"],
            env=environment, capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        (file,) = said.iterdir()
        arguments, status = file.read_text().split("Name:\t")
        shutil.rmtree(said)
        return arguments.splitlines(), {
            int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapAmb"))
        }

    arguments, may = started({})
    assert may == {DAC_READ_SEARCH}
    assert started(_repositories.own_program("vault", url)) == (arguments, {0})
