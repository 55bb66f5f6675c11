"""One host: its disk, its boot and its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .bases import apt_settings
from .network import Subnet, remove_interface
from .services import SERVICE4, SERVICE6, SERVICE_PROXY, SERVICE_PROXY6, SERVICES_NAME, end, reap, spawn
from .shell import LabError, run, wait_until
from .spec import HostSpec, make_host
from .state import CGROUP, HostState, LabState, Process

BTRFS_SIZE = 2 << 30
# The package cache serves no other ports than those of the web.
OWN_REPOSITORY = f'Acquire::http::Proxy::{SERVICES_NAME} "DIRECT";\n'
# Seconds that a connection is kept for the next command.
KEPT = 60
HOSTS_BEGIN, HOSTS_END = "# lab: begin", "# lab: end"


def spec_of(host: HostState) -> HostSpec:
    """What the host was asked to be."""
    return make_host(host.name, host.suite, host.options)


def addresses(lab: LabState, host: HostState) -> list[str]:
    """The addresses of a host, the one to dial first."""
    subnet = Subnet(lab.index)
    ipv6 = subnet.address6(host.number)
    return [ipv6] if spec_of(host).ipv6only else [subnet.address4(host.number), ipv6]


def disk(lab: LabState, host: HostState) -> Path:
    """The directory with what the host wrote."""
    return Path(lab.disks) / host.name


def console(lab: LabState, host: HostState) -> Path:
    """What the host says while it boots."""
    return lab.directory / "hosts" / host.name / "console.log"


def ended(lab: LabState, host: HostState) -> Path:
    """Written when the host ended in good order."""
    return lab.directory / "hosts" / host.name / "ended"


def hosts_block(lab: LabState) -> str:
    """The lines of /etc/hosts about the lab."""
    lines = [HOSTS_BEGIN, f"{SERVICE4} {SERVICES_NAME}", f"{SERVICE6} {SERVICES_NAME}"]
    for host in lab.hosts.values():
        lines += [f"{address} {host.name}" for address in addresses(lab, host)]
    return "\n".join([*lines, HOSTS_END, ""])


def make_disk(lab: LabState, host: HostState) -> None:
    """Give a host a fresh disk: its name, addresses, keys and extra file systems."""
    spec = spec_of(host)
    directory = disk(lab, host)
    shutil.rmtree(directory, ignore_errors=True)
    upper = directory / "upper"
    upper.mkdir(parents=True, mode=0o700)
    upper.chmod(0o755)
    writer = _Writer(upper, [Path(lower) for lower in host.lowers])
    public = (lab.directory / "id_ed25519.pub").read_text()
    proxy = SERVICE_PROXY6 if spec.ipv6only else SERVICE_PROXY
    writer.put("etc/hostname", f"{host.name}\n")
    writer.put("etc/machine-id", "")
    writer.put(
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" + hosts_block(lab),
    )
    writer.put("etc/resolv.conf", _resolvers())
    writer.put("etc/apt/apt.conf.d/99lab", apt_settings(proxy) + OWN_REPOSITORY)
    writer.put("etc/systemd/network/10-host0.network", _network_file(lab, host))
    if spec.nobind:
        # systemd-networkd has a sandbox that does not start there.
        writer.put("etc/systemd/system/lab-network.service", _network_unit(lab, host))
        wanted = writer.path("etc/systemd/system/multi-user.target.wants/lab-network.service")
        wanted.symlink_to("../lab-network.service")
        writer.path("etc/systemd/system/systemd-networkd.service").symlink_to("/dev/null")
    writer.put("root/.ssh/authorized_keys", public, mode=0o600, directory_mode=0o700)
    writer.put("home/ops/.ssh/authorized_keys", public, mode=0o600, directory_mode=0o700)
    ops = _user(writer, "ops")
    for path in (upper / "home/ops/.ssh", upper / "home/ops/.ssh/authorized_keys"):
        os.chown(path, *ops)
    key = writer.path("etc/ssh/ssh_host_ed25519_key")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", str(key)])
    _make_images(spec, directory)


def _machine(lab: LabState, host: HostState) -> str:
    """The name that systemd-nspawn gives the host, and its interface after "vb-"."""
    return f"hf{lab.index}-{host.number}"


def host_key(lab: LabState, host: HostState) -> str:
    """The public host key that the lab gave the host."""
    path = disk(lab, host) / "upper/etc/ssh/ssh_host_ed25519_key.pub"
    return " ".join(path.read_text().split()[:2])


def boot(lab: LabState, host: HostState) -> None:
    """Start a host; it is not ready yet."""
    spec = spec_of(host)
    root = lab.directory / "hosts" / host.name / "root"
    root.mkdir(parents=True, exist_ok=True)
    ended(lab, host).unlink(missing_ok=True)
    console(lab, host).unlink(missing_ok=True)
    directory = disk(lab, host)
    machine = _machine(lab, host)
    # One that ended by itself may have left it.
    remove_interface(f"vb-{machine}")
    command = [
        "systemd-nspawn", "--quiet", "--settings=no", f"--directory={root}",
        f"--machine={machine}", f"--hostname={host.name}",
        f"--network-bridge={Subnet(lab.index).bridge}",
        "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no",
        "--resolv-conf=off", "--timezone=off",
        # What units of a real host may do and systemd-nspawn withholds: BPF (IPAddressDeny=, DevicePolicy=) and mlock.
        "--capability=CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK",
        "--system-call-filter=bpf @memlock landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ]  # fmt: skip
    if spec.without:
        command.append(f"--drop-capability={','.join(spec.without)}")
    if spec.fuse:
        command.append("--bind=/dev/fuse")
    if spec.btrfs:
        command.append(f"--bind={directory / 'btrfs'}:{spec.btrfs}")
    for index, (path, _size) in enumerate(spec.disks):
        command.append(f"--bind={directory / f'disk{index}'}:{path}")
    if spec.nosystemd:
        command += ["--as-pid2", "/bin/sh", "-c", _without_systemd(lab, host)]
    elif spec.nobind:
        init = Path(__file__).with_name("nobind.py").read_text()
        command += ["--kill-signal=SIGRTMIN+3", "/usr/bin/python3", "-c", init]
    else:
        command.append("--boot")
    own_scope = _systemd_runs()
    prefix = _scope(lab, host, spec) if own_scope else []
    host.ready = False
    host.process = spawn(
        [*prefix, "unshare", "--mount", "sh", str(Path(__file__).with_name("boot.sh")), *command],
        console(lab, host),
        {
            "LAB_CGROUP": f"{CGROUP}/{lab.name}/{host.name}",
            "LAB_SCOPE": "own" if own_scope else "private",
            "LAB_MEMORY": str(spec.memory or ""),
            "LAB_LOWER": ":".join(host.lowers),
            "LAB_DISK": str(directory),
            "LAB_ROOT": str(root),
            "LAB_ENDED": str(ended(lab, host)),
        },
    )


def wait_ready(lab: LabState, host: HostState, timeout: float) -> str:
    """Wait until the host is up and answers ssh; return what systemd says of it."""
    assert host.process is not None
    process = host.process
    address = addresses(lab, host)[0]
    if not wait_until(lambda: not process.alive or _greets(address), timeout=timeout):
        raise LabError(f"{host.name} did not answer ssh within {timeout:.0f} s: {_tail(lab, host)}")
    if not process.alive:
        raise LabError(f"{host.name} ended while it booted: {_tail(lab, host)}")
    if spec_of(host).nosystemd:
        state = ssh(lab, host, ["true"], timeout=timeout).returncode == 0 and "running"
    else:
        wait = ["systemctl", "is-system-running", "--wait"]
        state = ssh(lab, host, wait, timeout=timeout).stdout.decode().strip()
    if state == "degraded":
        failed = ["systemctl", "--failed", "--plain", "--no-legend"]
        units = ssh(lab, host, failed, timeout=timeout).stdout.decode().splitlines()
        state = "degraded: " + ", ".join(line.split()[0] for line in units if line.strip())
    elif state != "running":
        raise LabError(f"{host.name} says it is '{state}': {_tail(lab, host)}")
    host.ready = True
    return state


def stop(lab: LabState, host: HostState, *, timeout: float = 30) -> None:
    """Shut a host down in good order; its disk stays."""
    _hang_up(lab, host)
    if host.process is not None:
        end(host.process, timeout=timeout)
    kill(lab, host)


def kill(lab: LabState, host: HostState) -> None:
    """End everything of a host at once and wait until its mounts and loop devices are gone."""
    _hang_up(lab, host)
    group = _cgroup(lab, host)
    process = host.process

    def gone() -> bool:
        if process is not None and process.alive:
            # Its session, in case that it had not entered its cgroup yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return _end_cgroup(group) and (process is None or not process.alive)

    if not wait_until(gone, timeout=20):
        raise LabError(f"The processes of {host.name} do not end; look at {group}.")
    if process is not None:
        reap(process)
    host.process, host.ready = None, False
    # The kernel takes its time to do so itself.
    remove_interface(f"vb-{_machine(lab, host)}")
    memory = Path("/sys/fs/cgroup/memory") / CGROUP / lab.name / host.name
    if memory.is_dir():
        wait_until(lambda: _rmdir(memory), timeout=5)
        _rmdir(memory.parent)
    images = f"{disk(lab, host)}/"
    if not wait_until(lambda: not any(used.startswith(images) for used in loops()), timeout=10):
        raise LabError(f"A loop device still uses a file in {images}; see `losetup -a`.")


def loops() -> list[str]:
    """The files behind the machine's loop devices."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text().strip())
        except OSError:
            continue
    return found


def ssh_options(lab: LabState) -> list[str]:
    """Options that pin host keys and use the lab's key only."""
    return [
        "-o", f"UserKnownHostsFile={lab.directory / 'known_hosts'}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "IdentitiesOnly=yes",
        "-o", "ConnectTimeout=10",
    ]  # fmt: skip


def ssh_command(lab: LabState, host: HostState, user: str = "root") -> list[str]:
    """The ssh command line that reaches a host."""
    key = str(lab.directory / "id_ed25519")
    return ["ssh", "-F", "none", "-i", key, *ssh_options(lab), "-l", user, addresses(lab, host)[0]]


def ssh(
    lab: LabState,
    host: HostState,
    argv: Sequence[str],
    *,
    timeout: float = 60,
    input: bytes | None = None,
    user: str = "root",
    keep: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command on a host; the words of `argv` arrive as they are.

    With `keep` the connection serves the next commands too: to make one costs more than what most commands do.
    """
    words = shlex.join(argv)
    kept = _kept_connection(lab, host, user) if keep else []
    command = [*ssh_command(lab, host, user), *kept, "-o", "BatchMode=yes", "--", words]
    try:
        return subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{words} on {host.name} did not end within {timeout:.0f} s.") from error


def _kept_connection(lab: LabState, host: HostState, user: str) -> list[str]:
    """Options of ssh that share a connection; makes it where there is none.

    Where that fails, or for more than sshd's ten sessions at once, ssh connects by itself, and says why.
    """
    socket_path = _sockets(lab, host) / f"ssh-{user}"
    options = ["-o", f"ControlPath={socket_path}"]
    # One at a time, of other processes, too.
    with (_sockets(lab, host) / ".connecting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(socket_path):
            socket_path.unlink(missing_ok=True)
            first = ["-f", "-N", "-o", "ControlMaster=yes", "-o", f"ControlPersist={KEPT}"]
            # One that lost its host ends.
            first += ["-o", "ServerAliveInterval=5", "-o", "BatchMode=yes"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*ssh_command(lab, host, user), *options, *first],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=30,
                    check=False,
                )
    return options


def _answers(socket_path: Path) -> bool:
    """Whether a connection is kept there: what a killed one leaves behind is a file that nobody answers at."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(socket_path))
        except OSError:
            return False
    return True


def _hang_up(lab: LabState, host: HostState) -> None:
    """End the connections that are kept."""
    for path in _sockets(lab, host).glob("ssh-*"):
        hang_up(path)


def hang_up(socket_path: Path) -> None:
    """End the connection that is kept at a socket, and wait until the process that kept it is gone."""
    keeper = re.search(r"pid=(\d+)", _tell_keeper(socket_path, "check"))
    process = None
    if keeper:
        # It may have ended since.
        with contextlib.suppress(LabError):
            process = Process.of(int(keeper[1]))
    # It answers first, and ends then.
    _tell_keeper(socket_path, "exit")
    if process is not None and not wait_until(lambda: not process.alive, timeout=10):
        raise LabError(f"Process {process.pid}, which keeps the connection {socket_path}, does not end.")
    socket_path.unlink(missing_ok=True)


def _tell_keeper(socket_path: Path, order: str) -> str:
    """Order a kept connection about; returns what it answers, nothing where nobody does."""
    # It wants a name for a host, and asks nobody who has it.
    argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket_path}", "-O", order, "kept"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stderr.decode(errors="replace")


def _sockets(lab: LabState, host: HostState) -> Path:
    return lab.directory / "hosts" / host.name


class _Writer:
    """Write into an upper layer, with directories that look like those below."""

    def __init__(self, upper: Path, lowers: Iterable[Path]) -> None:
        self.upper = upper
        self.lowers = list(lowers)

    def below(self, name: str) -> Path | None:
        """The path in the topmost layer that has it."""
        for lower in self.lowers:
            if (lower / name).exists():
                return lower / name
        return None

    def path(self, name: str, directory_mode: int = 0o755) -> Path:
        """Where to write a file; makes the directories above it."""
        path = self.upper / name
        for parent in reversed(Path(name).parents[:-1]):
            made = self.upper / parent
            if made.exists():
                continue
            made.mkdir()
            like = self.below(str(parent))
            if like is None:
                made.chmod(directory_mode)
            else:
                status = like.stat()
                made.chmod(stat.S_IMODE(status.st_mode))
                os.chown(made, status.st_uid, status.st_gid)
        return path

    def put(self, name: str, text: str, *, mode: int = 0o644, directory_mode: int = 0o755) -> None:
        """Write a file."""
        path = self.path(name, directory_mode)
        path.write_text(text)
        path.chmod(mode)


def _make_images(spec: HostSpec, directory: Path) -> None:
    if spec.btrfs:
        image = directory / "btrfs.img"
        _sparse(image, BTRFS_SIZE)
        run(["mkfs.btrfs", "-q", str(image)])
        if spec.btrfsquota:
            image.with_name("btrfs.img.quota").touch()
        (directory / "btrfs").mkdir()
    for index, (_path, size) in enumerate(spec.disks):
        image = directory / f"disk{index}.img"
        _sparse(image, size)
        run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", str(image)])
        (directory / f"disk{index}").mkdir()


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)


def _network_file(lab: LabState, host: HostState) -> str:
    subnet = Subnet(lab.index)
    spec = spec_of(host)
    lines = ["[Match]", "Name=host0", "", "[Network]", "LinkLocalAddressing=ipv6"]
    lines += ["IPv6AcceptRA=no", f"Gateway={subnet.address6(1)}"]
    if not spec.ipv6only:
        lines += [f"Gateway={subnet.address4(1)}"]
        lines += ["", "[Address]", f"Address={subnet.address4(host.number)}/24"]
    lines += ["", "[Address]", f"Address={subnet.address6(host.number)}/64"]
    return "\n".join([*lines, "DuplicateAddressDetection=none", ""])


def _network_commands(lab: LabState, host: HostState) -> list[str]:
    """What gives a host its addresses where systemd-networkd does not run."""
    subnet = Subnet(lab.index)
    commands = ["ip link set lo up", "ip link set host0 up"]
    commands += [f"ip address add {subnet.address6(host.number)}/64 dev host0 nodad"]
    commands += [f"ip -6 route add default via {subnet.address6(1)}"]
    if not spec_of(host).ipv6only:
        commands += [f"ip address add {subnet.address4(host.number)}/24 dev host0"]
        commands += [f"ip route add default via {subnet.address4(1)}"]
    return commands


def _without_systemd(lab: LabState, host: HostState) -> str:
    return "\n".join(["set -e", *_network_commands(lab, host), "mkdir -p /run/sshd", "exec /usr/sbin/sshd -D -e"])


def _network_unit(lab: LabState, host: HostState) -> str:
    lines = ["[Unit]", "Before=network.target", "", "[Service]", "Type=oneshot", "RemainAfterExit=yes"]
    return "\n".join([*lines, *(f"ExecStart={command}" for command in _network_commands(lab, host)), ""])


def _resolvers() -> str:
    text = Path("/etc/resolv.conf").read_text()
    real = Path("/run/systemd/resolve/resolv.conf")
    if "127.0.0.53" in text and real.exists():
        text = real.read_text()
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("#"))


def _user(writer: _Writer, name: str) -> tuple[int, int]:
    passwd = writer.below("etc/passwd")
    assert passwd is not None
    for line in passwd.read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3])
    raise LabError(f"The base has no user {name}; remove the base and build it again.")


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _tail(lab: LabState, host: HostState) -> str:
    try:
        text = console(lab, host).read_text(errors="replace")
    except FileNotFoundError:
        text = ""
    clean = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " | ".join(clean.splitlines()[-5:]) or f"nothing on {console(lab, host)}"


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir() and Path("/sys/fs/cgroup/cgroup.procs").exists()


def _unit(lab: LabState, host: HostState) -> str:
    return f"holdfast-lab-{lab.name}-{host.name}.scope"


def _scope(lab: LabState, host: HostState, spec: HostSpec) -> list[str]:
    command = ["systemd-run", "--scope", "--quiet", "--collect", "-p", "Delegate=yes"]
    command += [f"--unit={_unit(lab, host)}", "--slice=holdfast.slice"]
    if spec.memory is not None:
        command += ["-p", f"MemoryMax={spec.memory}"]
    return command


def _cgroup(lab: LabState, host: HostState) -> Path:
    """The host's cgroup as the outer machine sees it."""
    if _systemd_runs():
        return Path("/sys/fs/cgroup/holdfast.slice") / _unit(lab, host)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _dash, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(fields.split()[4]) / CGROUP / lab.name / host.name
    raise LabError("No cgroup2 is mounted; mount it, say at /sys/fs/cgroup/unified.")


def _end_cgroup(group: Path) -> bool:
    """Kill what is in a cgroup; True once it is gone."""
    if not group.is_dir():
        return True
    try:
        if (group / "cgroup.kill").exists():
            (group / "cgroup.kill").write_text("1")
        else:
            for procs in group.rglob("cgroup.procs"):
                for pid in procs.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        directories = sorted(group.rglob("*/"), key=lambda path: -len(path.parts))
    except OSError as error:
        # Gone meanwhile: systemd removes a scope with its last process.
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENODEV):
            raise
        return False
    for directory in directories:
        _rmdir(directory)
    gone = _rmdir(group)
    if gone:
        _rmdir(group.parent)
    return gone


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
