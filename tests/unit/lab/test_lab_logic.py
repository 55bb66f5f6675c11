"""What the lab decides without touching the machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.lab import api, archive, bases, cli, doctor, hosts, mirror, network, scenario, spec
from tests.lab.shell import LabError
from tests.lab.state import HostState, LabState, Process, boot_id
from tests.tools import scenarios


class TestHosts:
    def test_plain(self) -> None:
        assert spec.parse_host("vault1=trixie") == spec.HostSpec(name="vault1", suite="trixie")

    def test_every_option(self) -> None:
        host = spec.parse_host(
            "a=bookworm:ipv6only,fuse,nosystemd,nobind,btrfs=/srv/b,btrfsquota,disk=/full:16M,disk=/x:1G,memory=300M,without=CAP_SYSLOG,layer=restic+borg"
        )
        assert host == spec.HostSpec(
            name="a",
            suite="bookworm",
            ipv6only=True,
            fuse=True,
            nosystemd=True,
            nobind=True,
            without=("CAP_SYSLOG",),
            btrfs="/srv/b",
            btrfsquota=True,
            disks=(("/full", 16 << 20), ("/x", 1 << 30)),
            memory=300 << 20,
            layers=("borg", "restic"),
        )

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("vault1", "names no suite: write vault1=trixie"),
            ("vault1=buster", "choose bookworm or trixie"),
            ("Vault=trixie", "no host name"),
            ("a--b=trixie", "no host name"),
            ("a=trixie:ipv4only", "there are ipv6only"),
            ("a=trixie:btrfs=srv", "no option"),
            ("a=trixie:disk=/../x:1M", "no option"),
            ("a=trixie:disk=/x", "no size"),
            ("a=trixie:memory=0", "no size"),
            ("a=trixie:layer=x", "there are borg"),
            ("a=trixie:btrfsquota", "needs btrfs=/path"),
        ],
    )
    def test_refused_with_the_cure(self, text: str, sentence: str) -> None:
        with pytest.raises(LabError, match=sentence):
            spec.parse_host(text)

    def test_layers_leave_out_what_a_suite_does_not_have(self) -> None:
        assert "restic-rest-server" in spec.parse_host("a=trixie:layer=server").packages
        assert "restic-rest-server" not in spec.parse_host("a=bookworm:layer=server").packages

    @pytest.mark.parametrize("name", ["", "Lab", "1lab", "../x", ".machine", "a b"])
    def test_lab_names(self, name: str) -> None:
        with pytest.raises(LabError, match="no name for a lab"):
            spec.check_lab_name(name)

    def test_platforms_of_a_scenario(self) -> None:
        platforms: list[dict[str, Any]] = [
            {"name": "a", "suite": "trixie", "options": ["fuse", "disk=/x:1M"]},
            {"name": "b", "suite": "bookworm", "options": "ipv6only"},
            {"name": "c", "suite": "trixie", "groups": ["all_of_them"]},
        ]
        assert scenario.wanted(platforms) == ["a=trixie:fuse,disk=/x:1M", "b=bookworm:ipv6only", "c=trixie"]
        with pytest.raises(LabError, match="needs name and suite"):
            scenario.wanted([{"name": "a"}])


class TestOwnerOfAScenario:
    """A scenario's hosts end with what destroys them, where there is such a process."""

    def test_none_is_named(self) -> None:
        assert scenario.owner({}) is None
        assert scenario.owner({"HOLDFAST_LAB_OWNER": ""}) is None

    def test_one_is_named(self) -> None:
        assert scenario.owner({"HOLDFAST_LAB_OWNER": "12"}) == 12
        with pytest.raises(LabError, match="HOLDFAST_LAB_OWNER is the number of a process, not 'me'"):
            scenario.owner({"HOLDFAST_LAB_OWNER": "me"})

    @pytest.mark.parametrize("command", ["test", "converge"])
    def test_what_runs_a_whole_scenario_owns_it(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Mapping[str, str]] = []

        def run(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
            seen.append(options["env"])
            return subprocess.CompletedProcess(argv, 0)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "argv", ["scenarios", "--command", command, "jobs"])
        monkeypatch.delenv("HOLDFAST_LAB_OWNER", raising=False)
        assert scenarios.main() == 0
        # To look around, hosts have to stay.
        assert [scenario.owner(each) for each in seen] == [os.getpid() if command == "test" else None]
        assert scenario.owner(scenarios.job("jobs").environment) == os.getpid()


class TestAddresses:
    def test_a_lab_has_its_own_subnets(self) -> None:
        subnet = network.Subnet(7)
        assert (str(subnet.ipv4), str(subnet.ipv6)) == ("10.83.7.0/24", "fd68:6f6c:6466:7::/64")
        assert (subnet.address4(12), subnet.address6(12)) == ("10.83.7.12", "fd68:6f6c:6466:7::12")

    def test_the_first_free_subnet(self) -> None:
        assert network.free_index([], []) == 1
        assert network.free_index([1, 2, 4], []) == 3

    def test_subnets_that_the_machine_routes_are_avoided(self) -> None:
        assert network.free_index([1], ["10.83.2.0/25", "192.168.0.0/16", "fd68:6f6c:6466:3::1"]) == 4

    def test_no_subnet_is_free(self) -> None:
        with pytest.raises(LabError, match="lab down"):
            network.free_index([], ["10.0.0.0/8"])

    def test_host_numbers(self) -> None:
        assert network.free_number([10, 12]) == 11
        with pytest.raises(LabError, match="second lab"):
            network.free_number(range(10, 251))


class TestDoctor:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for name, text in {
            "etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n",
            "proc/filesystems": "nodev\toverlay\n",
            "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            "proc/self/mountinfo": "20 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n22 20 0:21 / /proc rw - proc proc rw\n",
            "proc/self/status": "Name:\tlab\nCapEff:\t000001fffeffffff\n",
            "sys/class/net/x": "",
            "dev/fuse": "",
            "dev/loop-control": "",
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    def examine(self, root: Path, **changes: Any) -> list[doctor.Problem]:
        return doctor.examine(**{"uid": 0, "which": str, "root": root, "load": lambda _module: None, **changes})

    def test_a_fit_machine(self, root: Path) -> None:
        assert self.examine(root) == []

    def test_missing_programs_become_one_apt_line(self, root: Path) -> None:
        [problem] = self.examine(root, which=lambda name: None if name in {"nft", "ssh", "ssh-keygen"} else name)
        assert str(problem) == "Programs are missing: apt-get install nftables openssh-client (or `lab install`)"

    def test_what_else_may_be_wrong(self, root: Path) -> None:
        (root / "proc/filesystems").write_text("ext4\n")
        (root / "proc/mounts").write_text("")
        (root / "dev/fuse").unlink()
        problems = self.examine(root, uid=1000)
        assert [problem.cure.split()[0] for problem in problems] == ["use", "modprobe", "mount", "modprobe"]
        assert [problem.fatal for problem in problems] == [True, True, True, False]

    def test_a_module_that_nobody_asked_for_yet_is_loaded(self, root: Path) -> None:
        (root / "proc/filesystems").write_text("ext4\n")
        (root / "dev/fuse").unlink()
        (root / "dev/loop-control").unlink()
        there: dict[str, Callable[[], object]] = {
            "overlay": lambda: (root / "proc/filesystems").write_text("nodev\toverlay\n"),
            "fuse": (root / "dev/fuse").touch,
            "loop": (root / "dev/loop-control").touch,
        }
        assert self.examine(root, load=lambda module: there[module]()) == []

    def test_capabilities_that_a_container_withholds(self, root: Path) -> None:
        # Without CAP_NET_ADMIN (12) and CAP_SYS_ADMIN (21).
        (root / "proc/self/status").write_text("CapEff:\t000001fffedfefff\n")
        [problem] = self.examine(root)
        assert problem.fatal
        assert str(problem).startswith("This process lacks CAP_NET_ADMIN CAP_SYS_ADMIN: ")

    def test_a_chroot(self, root: Path) -> None:
        (root / "proc/self/mountinfo").write_text("22 20 0:21 / /proc rw - proc proc rw\n")
        [problem] = self.examine(root)
        assert problem.fatal
        assert problem.cure.startswith("mount --bind")

    def test_nothing_of_the_kernel_is_to_be_seen(self, tmp_path: Path) -> None:
        assert [problem.cure for problem in self.examine(tmp_path)] == ["mount -t proc proc /proc"]

    @pytest.mark.parametrize("text", [None, "", "uninitialized\n"])
    def test_no_machine_id(self, root: Path, text: str | None) -> None:
        (root / "etc/machine-id").unlink()
        if text is not None:
            (root / "etc/machine-id").write_text(text)
        [problem] = self.examine(root)
        assert problem.fatal
        assert problem.cure == "systemd-machine-id-setup"


class TestInstall:
    """Debian's package cache starts when it is installed, on the port of the lab's own."""

    @pytest.fixture
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(doctor, "CACHE_UNIT", tmp_path / "system/apt-cacher-ng.service")
        monkeypatch.setattr(doctor, "POLICY", tmp_path / "policy-rc.d")
        monkeypatch.setattr(doctor, "missing_packages", lambda: ["apt-cacher-ng"])
        return tmp_path

    def test_it_is_masked_before_it_comes(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        masked = []

        def run(argv: Sequence[str], **_options: object) -> subprocess.CompletedProcess[str]:
            if "install" in argv:
                masked.append(os.readlink(machine / "system/apt-cacher-ng.service"))
            return subprocess.CompletedProcess(argv, 1)

        monkeypatch.setattr(doctor, "run", run)
        assert doctor.install() == ["apt-cacher-ng"]
        assert masked == ["/dev/null"]

    def test_one_that_somebody_uses_stays(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "missing_packages", lambda: ["nftables"])
        monkeypatch.setattr(doctor, "run", lambda argv, **_options: subprocess.CompletedProcess(argv, 1))
        doctor.install()
        assert not (machine / "system").exists()

    @pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
    @pytest.mark.parametrize("script", ['"$0"; echo $?', '"$0"; echo $?; kill -KILL $$'])
    def test_nothing_is_started_meanwhile_and_the_rule_is_as_it_was(
        self, machine: Path, before: str | None, script: str
    ) -> None:
        if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
            pytest.skip("no mount namespaces here")
        policy = machine / "policy-rc.d"
        if before is not None:
            policy.write_text(before)
            policy.chmod(0o755)
        argv = ["sh", "-c", script, str(policy)]
        if "KILL" in script:
            with pytest.raises(LabError):
                doctor.without_services(argv)
        else:
            assert doctor.without_services(argv).stdout == "101\n"
        assert (policy.read_text() if policy.exists() else None) == before


class TestArchive:
    def test_mirrors_come_from_the_machine(self) -> None:
        text = """\
Types: deb
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
# a comment
URIs: http://mirror.example/debian-security
Suites: bookworm-security
"""
        sources = archive.read_sources(text, deb822=True)
        assert archive.choose_mirrors(sources) == archive.Archive(
            "http://mirror.example/debian", "http://mirror.example/debian-security"
        )

    def test_one_line_sources_and_foreign_ones(self) -> None:
        text = "deb [arch=amd64] https://other.example/apt x main\n# deb http://no.example/debian x main\ndeb http://m.example/debian bookworm main\n"
        assert archive.choose_mirrors(archive.read_sources(text, deb822=False)) == archive.Archive(
            "http://m.example/debian", "http://m.example/debian-security"
        )

    def test_disabled_sources_do_not_count(self) -> None:
        text = "Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: bookworm\n"
        with pytest.raises(LabError, match="no mirror of Debian"):
            archive.choose_mirrors(archive.read_sources(text, deb822=True))

    def test_cloud_images_name_their_mirrors_in_a_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "APT", tmp_path)
        (tmp_path / "sources.list.d").mkdir()
        (tmp_path / "main.list").write_text(
            "# the first is taken\nhttps://a.example/debian\tpriority:1\nhttp://b.example/debian\n"
        )
        (tmp_path / "security.list").write_text("https://a.example/debian-security\n")
        (tmp_path / "sources.list.d/debian.sources").write_text(f"""\
Types: deb deb-src
URIs: mirror+file://{tmp_path}/main.list
Suites: bookworm bookworm-updates bookworm-backports
Components: main

Types: deb deb-src
URIs: mirror+file:{tmp_path}/security.list
Suites: bookworm-security
Components: main
""")
        assert archive.find_archive() == archive.Archive(
            "https://a.example/debian", "https://a.example/debian-security"
        )

    def test_a_list_that_is_not_there_names_no_mirror(self) -> None:
        assert archive.mirrors_of("mirror+file:///nowhere/debian.list") == []

    def test_no_backports(self) -> None:
        assert not any("backports" in line for line in archive.Archive("m", "s").sources("trixie"))


class TestMirror:
    @pytest.mark.parametrize(
        ("package", "upstream"), [("0.18.0-1+b4", "0.18.0"), ("1:1.75.2+dfsg-1", "1.75.2"), ("0.13.0-2", "0.13.0")]
    )
    def test_versions(self, package: str, upstream: str) -> None:
        assert mirror.upstream_version(package) == upstream

    @pytest.mark.parametrize("tool", sorted(mirror.TOOLS))
    def test_packing_is_reproducible(self, tool: str) -> None:
        pack = mirror.TOOLS[tool].pack
        assert pack("stem", tool, b"binary") == pack("stem", tool, b"binary")

    def test_rest_server_lies_in_a_directory(self) -> None:
        with tarfile.open(fileobj=BytesIO(mirror.pack_tar("stem", "rest-server", b"x"))) as packed:
            assert [(member.name, member.mode) for member in packed] == [("stem/rest-server", 0o755)]


class TestGarbage:
    def state(self, **changes: object) -> LabState:
        return LabState(**{"name": "unit-test", "index": 9, "boot": boot_id(), "disks": "/nowhere", **changes})  # type: ignore[arg-type]

    def host(self, process: Process | None) -> dict[str, HostState]:
        return {"a": HostState("a", "trixie", "", 10, process=process)}

    def test_a_running_host_keeps_its_lab(self) -> None:
        assert not api.is_garbage(self.state(hosts=self.host(Process.of(1))))

    def test_a_number_that_changed_hands_does_not(self) -> None:
        assert api.is_garbage(self.state(hosts=self.host(Process(1, Process.of(1).start + 1))))

    def test_an_owner_that_ended(self) -> None:
        gone = Process(1, Process.of(1).start + 1)
        assert api.is_garbage(self.state(hosts=self.host(Process.of(1)), owner=gone))

    def test_an_earlier_boot(self) -> None:
        assert api.is_garbage(self.state(hosts=self.host(Process.of(1)), boot="another"))

    def test_generations_are_removed_only_when_replaced_and_unused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bases, "CACHE", tmp_path)
        monkeypatch.setattr(time, "time", lambda: 1_000_000.0 + 3 * bases.DAY)
        names = ["base-trixie-aa-1000", "base-trixie-aa-1000000", "base-bookworm-bb-1", "layer-trixie-cc-1"]
        for name in [*names, "base-trixie-dd-2000"]:
            (tmp_path / "bases" / name).mkdir(parents=True)
        bases.collect([str(tmp_path / "bases/base-trixie-dd-2000")])
        left = {path.name for path in (tmp_path / "bases").iterdir()}
        assert left == {"base-trixie-aa-1000000", "base-bookworm-bb-1", "base-trixie-dd-2000"}


class TestBuilds:
    """A base is whole or is not there."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(bases, "CACHE", tmp_path)
        return tmp_path / "bases"

    def build(self, target: Path) -> None:
        (target / "file").touch()

    def broken(self, target: Path) -> None:
        (target / "file").touch()
        raise LabError("no network")

    def test_built_once(self) -> None:
        first = bases._cached("base-x", 1, 100, self.build)
        assert (first / "file").exists()
        assert bases._cached("base-x", 1, 100, self.broken) == first

    def test_another_recipe_is_another_base(self) -> None:
        assert bases._cached("base-x", 1, 100, self.build) != bases._cached("base-x", 2, 100, self.build)

    def test_a_failed_build_leaves_nothing(self, cache: Path) -> None:
        with pytest.raises(LabError, match="no network"):
            bases._cached("base-x", 1, 100, self.broken)
        assert [path for path in cache.iterdir() if path.is_dir()] == []

    def test_an_old_one_serves_when_it_cannot_be_renewed(self, capsys: pytest.CaptureFixture[str]) -> None:
        old = bases._cached("base-x", 1, 100, self.build)
        assert bases._cached("base-x", 1, -1, self.broken) == old
        assert "no network" in capsys.readouterr().err


def test_a_cgroup_that_systemd_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened in it is a device no more; the next look sees that it is gone."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group/cgroup.kill").touch()

    def write_text(path: Path, _text: str) -> None:
        path.unlink()
        path.parent.rmdir()
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(Path, "write_text", write_text)
    assert not hosts._end_cgroup(tmp_path / "group")
    assert hosts._end_cgroup(tmp_path / "group")


def test_the_inventory_is_yaml() -> None:
    lines = cli.yaml_lines({"all": {"hosts": {"a": {"ansible_host": "fd00::1"}}, "children": {}}})
    assert "\n".join(lines) == 'all:\n  hosts:\n    a:\n      ansible_host: "fd00::1"\n  children: {}'


def test_directories_around_what_is_kept_stay(tmp_path: Path) -> None:
    for name in ("var/lib/apt/lists/x", "var/lib/dpkg/status", "etc/passwd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {str(path.relative_to(tmp_path)) for path in bases._all_but(tmp_path, ["var/lib/apt/lists"])}
    assert found == {"var/lib/dpkg", "etc"}
