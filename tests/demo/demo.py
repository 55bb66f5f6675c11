"""The main job, shown on this machine's lab from nothing: a server and two clients, protected, attacked and restored."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tests.lab import Lab, LabError, mirror

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("vault1=trixie", "web1=bookworm", "db1=trixie")
STEPS = 8
STOPPING = (signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """Something did not turn out as it has to."""


class Demo:
    """One run of the story; `folder` holds the inventory and the state directory."""

    def __init__(self, lab: str, folder: Path, keep: bool) -> None:
        self.folder = folder
        self.keep = keep
        self.lab = Lab(lab)
        self.step_number = 0
        self.begun = time.monotonic()

    def step(self, title: str) -> None:
        """A heading with the time since the start."""
        self.step_number += 1
        passed = time.monotonic() - self.begun
        print(f"\n\033[1m[{self.step_number}/{STEPS}] {title}\033[0m  ({passed:.0f} s)", flush=True)

    def playbook(self, name: str, *arguments: str, quiet: bool = True) -> str:
        """Run a playbook of the collection; its output goes to the screen when it fails or is not quiet."""
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [program, "-i", "inventory.yml", f"holdfast.backup.{name}", *arguments]
        print("$", "ansible-playbook", "-i", "inventory.yml", f"holdfast.backup.{name}", *arguments, flush=True)
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        }
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode != 0:
            print(done.stdout)
            raise Failed(f"the playbook {name} failed")
        recap = done.stdout[done.stdout.index("PLAY RECAP") :].splitlines()[1:]
        print(textwrap.indent("\n".join(line for line in recap if line.strip()) if quiet else done.stdout, "  "))
        return done.stdout

    def on(self, host: str, *command: str, stdin: Path | None = None) -> str:
        """Run a command on a host and return what it prints."""
        text = stdin.read_bytes() if stdin else None
        return str(self.lab.exec(host, command, input=text, check=True, timeout=300).stdout)

    def tree(self, host: str, directory: str) -> dict[str, Any]:
        """Every file below a directory, with content and metadata."""
        return dict(json.loads(self.on(host, "python3", "-", directory, stdin=ROOT / "tests/demo/tree.py")))

    def run(self) -> None:
        """The story."""
        self.boot()
        self.provision()
        self.back_up()
        self.attack()
        self.restore()
        self.again()
        passed = time.monotonic() - self.begun
        print(
            f"\n\033[1mDone in {passed:.0f} s.\033[0m What you saw is playbooks/site.yml and friends; README.md says how to do it at home."
        )

    def boot(self) -> None:
        """Real hosts with systemd and sshd."""
        self.step("Boot a lab of real hosts: a server and two clients (the first time builds the base systems)")
        for report in self.lab.up(HOSTS, owner=None if self.keep else os.getpid()):
            print(
                f"  {report.name:8} {report.suite:10} {report.addresses[0]:14} {report.state} after {report.seconds:.1f} s"
            )

    def provision(self) -> None:
        """An inventory as a user writes it, and one run."""
        self.step("Write an inventory: 20 lines, and a key for the escrow")
        subprocess.run(
            ["age-keygen", "-o", "backup-escrow.key"], cwd=self.folder, check=True, capture_output=True, timeout=30
        )
        key = subprocess.run(
            ["age-keygen", "-y", "backup-escrow.key"],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        connection = self.lab.inventory({"backup_servers": ["vault1"], "backup_clients": ["web1", "db1"]})
        (self.folder / "inventory.yml").write_text(json.dumps(connection, indent=1))
        variables = self.folder / "group_vars" / "all"
        variables.mkdir(parents=True)
        text = textwrap.dedent(f"""\
            backup_escrow: {{recipients: [{key.stdout.strip()}]}}
            backup_repositories:
              vault: {{engine: restic, access: rest, server: vault1}}
            backup_jobs:
              system:
                paths: [/etc, /home, /root]
                exclude: ["*.cache"]
                schedule: {{calendar: daily, spread: 2h}}
                keep: {{within_daily: 14d, within_weekly: 8w, within_monthly: 12m}}
            """)
        (variables / "backup.yml").write_text(text)
        mirror.build()
        described: dict[str, Any] = mirror.describe()
        release = next(each for each in described["releases"] if each["tool"] == "restic" and each["suite"] == "sid")
        (self.folder / "host_vars").mkdir()
        old = pinned_release(release, described["url_by_name"])
        (self.folder / "host_vars" / "web1.yml").write_text(old)
        print(textwrap.indent(f"# group_vars/all/backup.yml\n{text}# host_vars/web1.yml\n{old}", "  "))
        self.step("Protect them: what the playbook site would do, and then one run of it")
        announced = changes(self.playbook("site", "--check"))
        done = changes(self.playbook("site"))
        if announced != done:
            raise Failed(f"check mode announced {announced}, and {done} was done")
        print("  A job's unit, as anyone can read it on db1 (systemctl cat holdfast-system--vault.service):")
        unit = self.on("db1", "systemctl", "cat", "holdfast-system--vault.service")
        command = unit[unit.index("ExecStart=/") :].split("\nExecStartPost", 1)[0]
        print(textwrap.indent(command, "    "))

    def back_up(self) -> None:
        """A backup of each client, and what the server and the fleet say."""
        self.step("Put data on web1, and back up both clients now")
        script = (
            "mkdir -p /home/alice/photos; cd /home/alice; head -c 20M /dev/urandom > photos/big.raw;"
            "printf 'secret' > diary; chmod 0000 diary; printf x > 'odd $name %n \"q\"'; ln -s diary link; ln diary hard;"
            "mkfifo pipe; truncate -s 5M sparse; setfattr -n user.mood -v good photos; setfacl -m u:daemon:r photos/big.raw;"
            "chown -R 1234:1234 photos"
        )
        self.on("web1", "sh", "-ec", script)
        output = self.playbook("backup")
        table = output[output.index("HOST ") :].split("\nok:")[0]
        print(textwrap.indent("The fleet's table (playbook status):\n" + table.rstrip(), "  "))
        self.step("What the server holds")
        print(textwrap.indent(self.on("vault1", "sh", "-c", "cd /srv/holdfast && du -sh * && ls */snapshots"), "  "))

    def attack(self) -> None:
        """A client's own credentials against its own history and the other client's."""
        self.step("An intruder on web1 uses web1's own credentials against the server")
        before = self.tree("vault1", "/srv/holdfast")
        tried = json.loads(self.on("web1", "python3", "-", "db1--vault", stdin=ROOT / "tests/demo/attack.py"))
        for what, status in tried.items():
            allowed = what in ("read own config", "list own snapshots", "list own snapshots again")
            good = status == 200 if allowed else status in (400, 401, 403, 404)
            print(f"  {what:32} HTTP {status}  {'allowed, as it must be' if allowed else 'refused'}")
            if not good:
                raise Failed(f"'{what}' ended with HTTP {status}")
        after = self.tree("vault1", "/srv/holdfast")
        if {key: value for key, value in after.items() if key in before} != before:
            raise Failed("a file on the server is gone or changed")
        print(f"  All {len(before)} files on the server are as they were.")

    def restore(self) -> None:
        """Data destroyed, restored and compared."""
        self.step("Destroy /home/alice on web1, and restore it")
        before = self.tree("web1", "/home/alice")
        self.on("web1", "rm", "-rf", "/home/alice")
        self.playbook(
            "restore", "--limit", "web1", "-e", "job=system", "-e", "target=/root/restored", "-e", "path=/home/alice"
        )
        self.on("web1", "mv", "/root/restored/home/alice", "/home/alice")
        after = self.tree("web1", "/home/alice")
        if before != after:
            changed = [
                bytes.fromhex(key).decode(errors="replace")
                for key in before.keys() | after.keys()
                if before.get(key) != after.get(key)
            ]
            raise Failed(f"restored files differ: {changed}")
        print(
            f"  {len(after)} files and directories are identical in content, owner, mode, times, attributes, ACLs and links."
        )

    def again(self) -> None:
        """Convergence."""
        self.step("Run the playbook site again: nothing to do")
        if any(changes(self.playbook("site")).values()):
            raise Failed("the second run changed something")


def pinned_release(release: Mapping[str, str], mirror_url: str) -> str:
    """Variables of a host with a restic that Debian does not have; hosts are of the machine's own architecture."""
    return textwrap.dedent(f"""\
        # bookworm's restic is older than what backups need: a release, pinned by its checksum, from a mirror
        restic_install: release
        restic_release_version: "{release["version"]}"
        restic_release_mirror: {mirror_url}restic
        restic_release_sha256: {{{platform.machine()}: {release["sha256"]}}}
        """)


def changes(output: str) -> dict[str, int]:
    """How many tasks changed something, by host, as Ansible's recap says."""
    recap = output[output.index("PLAY RECAP") :]
    found = {match[1]: int(match[2]) for match in re.finditer(r"^(\S+) .* changed=(\d+) ", recap, re.MULTILINE)}
    if len(found) != len(HOSTS):
        raise Failed(f"the recap tells of {len(found)} hosts only")
    return found


def _stop(number: int, _frame: object) -> NoReturn:
    for each in STOPPING:
        # A closed terminal says so twice, the second time in the midst of the teardown.
        signal.signal(each, lambda *_arguments: None)
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run the demo with the ansible-core beside this Python; KEEP=1 leaves the hosts up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lab", default="demo", help="its name")
    lab = parser.parse_args().lab
    keep = os.environ.get("KEEP", "") not in ("", "0")
    for number in STOPPING:
        # nohup ignores one.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    demo = Demo(lab, folder, keep)
    status = 0
    try:
        demo.lab.down()
        demo.run()
    except KeyboardInterrupt:
        status, keep = 130, False
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            print("\ninterrupted; tearing down", flush=True)
    except (Failed, LabError) as error:
        status = 1
        print(f"\nThe demo failed: {str(error).rstrip('.')}.", file=sys.stderr)
    finally:
        if keep:
            print(f"\nThe hosts stay up. Inventory and state directory: {folder}")
            for spec in HOSTS:
                print(f"  log in: tests/lab/lab ssh {lab} {spec.split('=', 1)[0]}")
            print(f"  tear down: tests/lab/lab down {lab}; rm -r {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                demo.lab.down()
            except LabError as error:
                status = 1
                print(f"\nThe demo's hosts could not be ended: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
