"""The lab itself: hosts boot, see each other, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.lab import Lab, LabError, hosts
from tests.lab.state import CACHE, CGROUP, RUN, load

NAME = f"selftest-{os.getpid()}"
PROGRAM = Path(__file__).resolve().parents[1] / "lab/lab"


def remains(name: str, index: int) -> list[str]:
    """Whatever of a lab is still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(f"{RUN}/{name}/" in word for word in words) or ("_watch" in words and name in words):
            found.append(" ".join(words))
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}/" in line]
    found += [path for path in hosts.loops() if f"/{name}/" in path]
    paths = [Path(f"/sys/class/net/hflab{index}"), RUN / name, CACHE / "disks" / name]
    paths += Path("/sys/fs/cgroup").glob(f"*/{CGROUP}/{name}")
    # Where systemd is the machine's PID 1.
    paths += Path("/sys/fs/cgroup").glob(f"holdfast.slice/holdfast-lab-{name}-*.scope")
    paths += Path("/sys/class/net").glob(f"vb-hf{index}-*")
    return found + [str(path) for path in paths if path.exists()]


def gone_within(name: str, index: int, seconds: float) -> list[str]:
    """Wait for the end of a lab; returns what remains of it."""
    deadline = time.monotonic() + seconds
    while (left := remains(name, index)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = Lab(NAME)
    try:
        specs = [
            "one=trixie:disk=/full:16M,btrfs=/srv/b",
            "six=bookworm:ipv6only",
            "bare=bookworm:nosystemd",
            "walled=trixie:nobind",
        ]
        lab.up(specs, owner=os.getpid())
        yield lab
    finally:
        lab.down()


def test_hosts_reach_each_other_by_name(lab: Lab) -> None:
    greet = "exec 3<>/dev/tcp/$0/22; head -c 4 <&3"
    for source in ("one", "six", "bare"):
        for target in ("one", "six", "bare"):
            done = lab.exec(source, ["timeout", "5", "bash", "-c", greet, target])
            assert done.stdout == "SSH-", f"{source} to {target}: {done.stderr}"


def test_ssh_from_one_host_to_another(lab: Lab) -> None:
    lab.exec("one", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519"], check=True)
    keys = lab.get("six", "/root/.ssh/authorized_keys") + lab.get("one", "/root/.ssh/id_ed25519.pub")
    lab.put("six", "/root/.ssh/authorized_keys", keys, mode=0o600)
    state = load(NAME)
    assert state is not None
    pin = f"six {hosts.host_key(state, state.hosts['six'])}\n"
    lab.put("one", "/root/.ssh/known_hosts", pin.encode())
    assert lab.exec("one", ["ssh", "-o", "BatchMode=yes", "six", "hostname"], check=True).stdout == "six\n"


def test_only_one_host_has_no_ipv4(lab: Lab) -> None:
    assert "inet " in lab.exec("one", ["ip", "address", "show", "host0"]).stdout
    assert "inet " not in lab.exec("six", ["ip", "address", "show", "host0"]).stdout


def test_packages_install_without_an_update_before(lab: Lab) -> None:
    for name in ("one", "six"):
        done = lab.exec(name, ["apt-get", "install", "--yes", "--no-install-recommends", "hello"])
        assert done.returncode == 0, done.stderr


def test_the_other_user_has_sudo(lab: Lab) -> None:
    assert lab.exec("one", ["sudo", "-n", "id", "-un"], user="ops", check=True).stdout == "root\n"


def test_extra_file_systems(lab: Lab) -> None:
    kinds = lab.exec("one", ["stat", "-f", "-c", "%T", "/full", "/srv/b", "/"], check=True).stdout.split()
    assert kinds == ["ext2/ext3", "btrfs", "overlayfs"]
    assert lab.exec("one", ["dd", "if=/dev/zero", "of=/full/x", "bs=1M", "count=20"]).returncode != 0


def test_a_host_without_systemd(lab: Lab) -> None:
    assert lab.exec("bare", ["test", "-e", "/run/systemd/system"]).returncode == 1
    assert lab.exec("one", ["test", "-e", "/run/systemd/system"]).returncode == 0


def test_units_are_confined(lab: Lab) -> None:
    """Directives that systemd-nspawn would make void by its own restrictions."""
    connect = ["timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/one/22"]
    unit = ["systemd-run", "--quiet", "--wait", "--pipe"]
    assert lab.exec("one", [*unit, *connect]).returncode == 0
    assert lab.exec("one", [*unit, "--property=IPAddressDeny=any", *connect]).returncode != 0
    read = ["head", "-c", "1", "/dev/net/tun"]
    assert "Operation not permitted" in lab.exec("one", [*unit, "--property=DevicePolicy=closed", *read]).stderr


def test_a_host_on_which_no_sandbox_starts(lab: Lab) -> None:
    """That of mounts; credentials, which are mounts too, are there."""
    unit = ["systemd-run", "--quiet", "--wait", "--pipe"]
    assert lab.exec("walled", [*unit, "--property=ProtectSystem=strict", "true"]).returncode == 226  # EXIT_NAMESPACE
    secret = [*unit, "--property=LoadCredential=name:/etc/hostname", "sh", "-c", 'cat "$CREDENTIALS_DIRECTORY/name"']
    assert lab.exec("walled", secret, check=True).stdout == "walled\n"
    assert lab.exec("walled", ["mount", "--bind", "/etc", "/mnt"]).returncode != 0


def test_the_disk_survives_a_restart_and_a_kill_but_no_wipe(lab: Lab) -> None:
    lab.put("one", "/root/kept", b"kept")
    machine = lab.get("one", "/etc/machine-id")
    lab.restart("one")
    lab.kill("one")
    with pytest.raises(LabError):
        lab.get("one", "/root/kept")
    lab.up([])
    assert (lab.get("one", "/root/kept"), lab.get("one", "/etc/machine-id")) == (b"kept", machine)
    before = (RUN / NAME / "known_hosts").read_text()
    lab.wipe("one")
    assert lab.exec("one", ["test", "-e", "/root/kept"]).returncode == 1
    assert lab.get("one", "/etc/machine-id") != machine
    assert (RUN / NAME / "known_hosts").read_text() != before


def test_a_host_may_reboot_itself(lab: Lab) -> None:
    boot = lab.exec("one", ["sh", "-c", "journalctl -q --list-boots | wc -l"]).stdout
    lab.exec("one", ["systemctl", "reboot"])
    deadline = time.monotonic() + 30
    again = boot
    while again in (boot, "") and time.monotonic() < deadline:
        time.sleep(0.5)
        again = lab.exec("one", ["sh", "-c", "journalctl -q --list-boots | wc -l"]).stdout
    assert int(again) == int(boot) + 1


def test_a_late_host_is_known_to_all(lab: Lab) -> None:
    lab.up(["late=trixie"])
    assert lab.exec("one", ["getent", "hosts", "late"]).returncode == 0
    lab.down(["late"])
    with pytest.raises(LabError, match="no host late"):
        lab.exec("late", ["true"])


def test_a_different_host_of_the_same_name_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match=f"lab down {NAME} six"):
        lab.up(["six=trixie"])


def test_the_inventory_is_complete(lab: Lab) -> None:
    inventory = lab.inventory({"servers": ["one"]})["all"]
    assert set(inventory["hosts"]) == {"one", "six", "bare", "walled"}
    assert inventory["children"] == {"servers": {"hosts": {"one": {}}}}
    assert "StrictHostKeyChecking=yes" in inventory["vars"]["ansible_ssh_common_args"]


@pytest.mark.parametrize("starts", ["up", "molecule"])
def test_a_lab_ends_with_its_owner_and_leaves_nothing(starts: str, tmp_path: Path) -> None:
    name = f"{NAME}-owned"
    with subprocess.Popen(["sleep", "300"]) as owner:
        try:
            if starts == "up":
                words, platforms = ["up", name, "a=trixie:disk=/x:16M", "--owner", str(owner.pid)], ""
            else:
                words = ["molecule", name, str(tmp_path / "instances.json")]
                platforms = json.dumps([{"name": "a", "suite": "trixie", "options": ["disk=/x:16M"]}])
            environment = {**os.environ, "HOLDFAST_LAB_OWNER": str(owner.pid) if starts == "molecule" else ""}
            subprocess.run([PROGRAM, *words], input=platforms, env=environment, text=True, check=True, timeout=120)
            state = load(name)
            assert state is not None
            assert remains(name, state.index), "the check itself finds nothing"
        finally:
            owner.send_signal(signal.SIGKILL)
    assert gone_within(name, state.index, 20) == []


def test_what_lost_its_processes_is_collected() -> None:
    name = f"{NAME}-lost"
    lab = Lab(name)
    try:
        lab.up(["a=trixie"], owner=os.getpid())
        state = load(name)
        assert state is not None
        process = state.hosts["a"].process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.5)
        listed = subprocess.run([PROGRAM, "list", "--json"], check=True, timeout=60, capture_output=True).stdout
        assert name not in json.loads(listed)
        assert gone_within(name, state.index, 5) == []
    finally:
        lab.down()


def test_down_leaves_nothing() -> None:
    name = f"{NAME}-down"
    lab = Lab(name)
    try:
        lab.up(["a=trixie:disk=/x:16M,btrfs=/b", "b=bookworm"], owner=os.getpid())
        state = load(name)
        assert state is not None
        for host, user in (("a", "root"), ("a", "ops"), ("b", "root")):
            lab.exec(host, ["true"], user=user, check=True)
        # The connections that are kept for the next command are among it.
        assert sum("ControlMaster=yes" in each for each in remains(name, state.index)) == 3
        assert len(remains(name, state.index)) > 7
    finally:
        lab.down()
    assert remains(name, state.index) == []


def test_a_machine_whose_init_is_systemd() -> None:
    """A host of the lab is such a machine, with a unified cgroup and without the lab's packages: the lab works in it."""
    name = f"{NAME}-machine"
    lab = Lab(name)
    root = PROGRAM.parents[2]
    # The subnets of this machine's labs are not free there; bases as they are here need not be built again.
    inner = "cd /root/repo; export HOLDFAST_LAB_IPV4=10.84.0.0/16 HOLDFAST_LAB_IPV6=fd68:6f6c:6467::/48; "

    def inside(script: str, timeout: float = 120) -> str:
        done = lab.exec("machine", ["bash", "-ec", inner + script], timeout=timeout)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    try:
        lab.up(["machine=bookworm"], owner=os.getpid())
        state = load(name)
        assert state is not None
        bases = [Path(lower).name for lower in state.hosts["machine"].lowers]
        for target, folder, names in (("/root/repo", root, ["tests"]), (f"{CACHE}/bases", CACHE / "bases", bases)):
            lab.exec("machine", ["mkdir", "-p", target], check=True)
            with subprocess.Popen(["tar", "-C", folder, "-c", *names], stdout=subprocess.PIPE) as packed:
                unpack = [*lab.ssh_command("machine"), "tar", "-C", target, "-x"]
                subprocess.run(unpack, stdin=packed.stdout, check=True, timeout=120)
        installed = inside("tests/lab/lab install")
        assert "apt-cacher-ng" in installed
        assert "3142" not in inside("ss -Hltn")
        assert inside("systemctl is-enabled apt-cacher-ng || :") == "masked\n"
        assert inside("ls /usr/sbin/policy-rc.d || :") == ""
        inside("tests/lab/lab up one a=bookworm:memory=300M b=bookworm:nosystemd")
        assert inside("systemctl show --value -p MemoryMax holdfast-lab-one-a.scope").split() == [str(300 << 20)]
        assert inside("tests/lab/lab exec one a -- systemctl is-system-running") == "running\n"
        inside("tests/lab/lab restart one a; tests/lab/lab kill one a; tests/lab/lab up one")
        assert set(json.loads(inside("tests/lab/lab list --json"))["one"]["hosts"]) == {"a", "b"}
        # With its last lab everything ends; the slice, empty, is systemd's.
        inside("tests/lab/lab down one")
        left = "ls -d /sys/class/net/hf* /sys/class/net/vb-* /run/holdfast-lab/[a-z]* /sys/fs/cgroup/holdfast.slice/*/"
        assert inside(f"({left}) 2>/dev/null || :; pgrep systemd-nspawn || :") == ""
    finally:
        lab.down()
