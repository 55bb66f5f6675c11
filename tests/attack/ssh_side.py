# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server of repositories over SSH and a client of it, as attacks need them.

The server is as permissive to everybody else as an administrator can make it, and has accounts that may do everything:
an attack that succeeds with those is delivered, so that its failure with the client's account means something.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = ROOT / "tests/attack/ssh_access.yml"
CONTROL = "control"
VAULT = "/srv/holdfast-ssh"
# The real clients, by the kind of their repository; `victim` is another tenant.
CLIENTS = {"web1": "rclone", "store": "sftp", "arch": "borg", "victim": "rclone"}
# What an administrator may have allowed to everybody.
PERMISSIVE = """\
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
GatewayPorts clientspecified
PermitTunnel yes
X11Forwarding yes
PermitUserEnvironment yes
PermitUserRC yes
PermitTTY yes
AcceptEnv *
AllowUsers root ops control bk-nobody
AllowGroups root ops control
"""
# sshd only wants it to be there.
XAUTH = "#!/bin/sh\ncat >/dev/null\n"


def synthetic_key(number: int) -> str:
    """A public key that is well formed and nobody's."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"no client" + number.to_bytes(23, "big")
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


@dataclass
class Side:
    """One server, the client host that attacks it, and the inventory that Ansible reaches the server with."""

    lab: Lab
    server: str
    client: str
    inventory: Path
    keys: dict[str, str] = field(default_factory=dict)
    # The key that attacks are made with.
    key: str = "web1"
    # Where Ansible finds the collection.
    collections: Path = ROOT / ".collections"

    # -- hosts --------------------------------------------------------------

    def run(self, host: str, script: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root, however it ends."""
        return self.lab.exec(host, ["sh", "-c", script], timeout=timeout)

    def on_server(self, script: str) -> str:
        """Run a shell script on the server; asserts that it ends with 0, and returns what it printed."""
        done = self.run(self.server, script)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def on_client(self, script: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the client, however it ends."""
        return self.run(self.client, script, timeout=timeout)

    # -- preparation --------------------------------------------------------

    def prepare(self) -> None:
        """Make the client's keys, and permit everything to everybody else."""
        names = " ".join(CLIENTS)
        done = self.on_client(
            f"set -e; mkdir -p -m 700 /root/keys; cd /root/keys; for name in {names}; do"
            ' [ -e "$name" ] || ssh-keygen -q -t ed25519 -N "" -C "$name" -f "$name"; done'
        )
        assert done.returncode == 0, done.stderr
        self.permit()

    def permit(self) -> None:
        """Pin the server, make it permissive, and let the key into the accounts that may do everything."""
        self.read_keys()
        host_key = self.on_server("cat /etc/ssh/ssh_host_ed25519_key.pub").strip()
        self.lab.put(self.client, f"/root/keys/known_hosts.{self.server}", f"{self.server} {host_key}\n".encode())
        mine = self.keys[self.key]
        self.lab.put(self.server, "/usr/bin/xauth", XAUTH.encode(), mode=0o755)
        main = self.on_server("cat /etc/ssh/sshd_config")
        if "AcceptEnv *" not in main:
            self.lab.put(self.server, "/etc/ssh/sshd_config", (main + PERMISSIVE).encode())
        # Newer ones shut out an address that fails often, and all of this comes from one.
        self.on_server(
            "! sshd -T | grep -q ^persourcepenalties || echo PerSourcePenalties no >/etc/ssh/sshd_config.d/20-lab.conf"
        )
        self.on_server(
            f"set -e; id {CONTROL} >/dev/null 2>&1 || useradd -m -s /bin/sh -p '*' {CONTROL}\n"
            f"for home in /home/{CONTROL} /root; do mkdir -p -m 700 $home/.ssh; touch $home/.ssh/authorized_keys\n"
            f"grep -qF '{mine}' $home/.ssh/authorized_keys || echo '{mine}' >>$home/.ssh/authorized_keys; done\n"
            f"chown -R {CONTROL}: /home/{CONTROL}/.ssh; systemctl reload ssh"
        )

    def fill(self) -> None:
        """Give every client what restic would have there: of nothing, nothing can be seen to be lost."""
        self.on_server(
            f"set -e; for name in {' '.join(CLIENTS)}; do cd {VAULT}/$name--vault; [ ! -e config ] || continue\n"
            "for kind in keys data/00 index snapshots; do mkdir -p $kind; head -c 2000 /dev/urandom >new\n"
            "mv new $kind/$(sha256sum <new | cut -c 1-64); done; head -c 200 /dev/urandom >config\n"
            "chown -R bk-$name: *; chmod -R go= *; done"
        )

    def read_keys(self) -> None:
        """Read the public halves that the client has."""
        lines = self.on_client("tail -n +1 -q /root/keys/*.pub").stdout.splitlines()
        self.keys = {line.split()[2]: line for line in lines}

    def variables(self, more: int = 0, clients: dict[str, str] | None = None, **keys: Any) -> dict[str, Any]:
        """Variables of the role for the real clients and `more` that have no host; `keys` replace what a client delivers."""
        accounts, definitions = [], []
        everybody = [(name, kind, self.keys[name]) for name, kind in (CLIENTS if clients is None else clients).items()]
        everybody += [(f"c{number}", "rclone", synthetic_key(number)) for number in range(more)]
        for name, kind, public in everybody:
            key = {"repository": "vault", "kind": kind, "public_keys": [public], **keys.get(name, {})}
            line = {option: value for option, value in key.items() if option not in ("append_only", "quota")}
            accounts.append({"name": f"bk-{name}", "host": name, "backup_id": name, "keys": [line]})
            more_of_it = {option: key[option] for option in ("append_only", "quota") if option in key}
            definition = {"name": f"{name}--vault", "account": f"bk-{name}", "kind": key["kind"], **more_of_it}
            definitions.append(definition)
        return {"ssh_access_accounts": accounts, "ssh_access_definitions": definitions, "ssh_access_fleet_id": "attack"}

    def deploy(self, variables: dict[str, Any], *arguments: str, fails: bool = False) -> dict[str, Any]:
        """Run the role on the server; returns what ssh_accounts did, and the output."""
        path = self.inventory.with_name("ssh_access.json")
        path.write_text(json.dumps(variables))
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [
            str(program),
            "-i",
            str(self.inventory),
            "-l",
            self.server,
            "-e",
            f"@{path}",
            str(PLAYBOOK),
            *arguments,
        ]
        environment = {
            **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1",
        }  # fmt: skip
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout
        found = [line.partition("RESULT ")[2] for line in done.stdout.splitlines() if "RESULT " in line]
        result: dict[str, Any] = json.loads(base64.b64decode(found[0].strip().strip('"'))) if found else {}
        return {**result, "output": done.stdout}

    # -- sessions -----------------------------------------------------------

    def ssh(self, account: str, arguments: str = "", key: str = "", program: str = "ssh") -> str:
        """The command line, for a shell on the client, of a login as an account; without a key, with that of attacks."""
        options = (
            f"-F none -o UserKnownHostsFile=/root/keys/known_hosts.{self.server} -o BatchMode=yes -o IdentitiesOnly=yes "
            f"-o StrictHostKeyChecking=yes -o ConnectTimeout=10 -i /root/keys/{key or self.key}"
        )
        if program == "ssh":
            return f"ssh {options} {arguments.replace('ACCOUNT', f'{account}@{self.server}')}"
        return f"{program} {options} {arguments.replace('ACCOUNT', f'{account}@{self.server}')}"

    def login(
        self, account: str, arguments: str = "ACCOUNT", key: str = "", program: str = "ssh", wait: float = 10
    ) -> subprocess.CompletedProcess[str]:
        """Log in, with nothing on standard input, however it ends; it is ended after `wait` seconds."""
        return self.on_client(
            f"timeout {wait} {self.ssh(account, arguments, key, program)} </dev/null", timeout=wait + 30
        )

    @contextlib.contextmanager
    def open(
        self, account: str, arguments: str, key: str = "", until: Callable[[], Any] | None = None, before: str = ""
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Keep a login open, with a standard input that says nothing.

        Waits until `until` is true, or the account was seen on the server for a while.
        """
        script = f"{before} sleep 300 | timeout 300 {self.ssh(account, arguments, key)}; sleep 300"
        process = subprocess.Popen(
            [*self.lab.ssh_command(self.client), "sh", "-c", f"'{script}'"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            done = until or (lambda: False)
            if wait_for(lambda: done() or self.processes(account), 15):
                # What is to be seen takes a busy server longer.
                wait_for(done, 2 if until is None else 20)
            yield process
        finally:
            self.on_client("pkill -x ssh; pkill -x sleep; pkill -x ssh-agent; rm -f /root/*.sock")
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def keeps_coming(self, account: str, key: str) -> Iterator[None]:
        """Log in again and again, several times at once, whatever the server does with it."""
        loop = f"while :; do timeout 60 {self.ssh(account, '-N ACCOUNT', key)} </dev/null >/dev/null 2>&1; done"
        self.lab.put(self.client, "/root/come", f"#!/bin/sh\n{loop}\n".encode(), mode=0o755)
        self.on_client("for one in 1 2 3 4 5 6; do setsid /root/come </dev/null >/dev/null 2>&1 & done")
        try:
            assert wait_for(lambda: str(self.processes(account)).count("sshd") > 1, 20)
            yield
        finally:
            self.on_client("pkill -f '^/bin/sh /root/come'; pkill -x ssh; rm /root/come")

    # -- what the server shows ---------------------------------------------

    def processes(self, account: str) -> list[str]:
        """Command lines of everything that runs as an account."""
        return self.on_server(f"ps -o args= -U {account} || :").splitlines()

    def served(self, account: str = "bk-web1", key: str = "") -> bool:
        """The legitimate operation: the key starts what it is for, which ends with its standard input."""
        assert wait_for(lambda: not self.serves(account), 20), "what an earlier session started would be taken for it"
        seen = False

        def serves() -> bool:
            # Seen once is enough: after ten seconds, rclone ends who says nothing.
            nonlocal seen
            seen = seen or self.serves(account)
            return seen

        with self.open(account, "ACCOUNT", key=key, until=serves):
            return seen

    def serves(self, account: str) -> bool:
        """Whether a repository of the account is served now."""
        return any(
            word in line for line in self.processes(account) for word in ("serve restic", "borg serve", "sftp-server")
        )

    def hashes(self, *names: str) -> str:
        """Owner and mode of everything that these clients have on the server, and the SHA-256 of each file; each has some."""
        places = " ".join(f"{VAULT}/{name}--vault" for name in names)
        found = self.on_server(f"find {places} -exec stat -c '%n %U %a' {{}} + -type f -exec sha256sum {{}} + | sort")
        for name in names:
            assert re.search(f"^[0-9a-f]{{64}}  {VAULT}/{name}--vault/", found, re.M), f"{name} has nothing to lose"
        return found

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Everything that the clients have is there afterwards as it was, and nothing else."""
        before = self.hashes(*CLIENTS).splitlines()
        yield
        changed = set(before) ^ set(self.hashes(*CLIENTS).splitlines())
        assert not changed, sorted(changed)

    def probe(self, script: str) -> bool:
        """Whether a shell script on the server ends with 0."""
        return self.run(self.server, script).returncode == 0


def wait_for(condition: Callable[[], Any], seconds: float) -> bool:
    """Whether a condition became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
