# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds of SSH, each with an account that may do it: imported where a fixture `side` is, of one server each.

An attack says whether it succeeded, by what the server or the client has to show for it. It has to succeed with the
account that may do everything, just before and just after it fails with the client's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils._serve import MOST_SESSIONS

from .ssh_side import CLIENTS, CONTROL, VAULT, Side, wait_for

Attack = Callable[[Side, str], bool]
ATTACKS: dict[str, Attack] = {}
BOTH = {"restrict": "restrict,", "one command": 'command="/usr/local/libexec/holdfast/serve vault"'}


def attack(name: str) -> Callable[[Attack], Attack]:
    """Register an attack under the name that a failing test has."""

    def register(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return register


@attack("command")
def _command(side: Side, account: str) -> bool:
    return "uid=" in side.login(account, "ACCOUNT id").stdout


@attack("command instead of serve")
def _serve(side: Side, account: str) -> bool:
    done = side.login(account, f"ACCOUNT '/usr/local/libexec/holdfast/serve other; ls {VAULT}; echo was here'")
    return "was here" in done.stdout


@attack("terminal")
def _terminal(side: Side, account: str) -> bool:
    done = side.login(account, "-tt ACCOUNT tty")
    # rclone itself refuses a terminal, so what was granted is seen by what ssh does not complain about.
    granted = done.returncode != 255 and "PTY allocation request failed" not in done.stderr
    return "/dev/pts/" in done.stdout or granted


@attack("TCP to the server and behind it (-W)")
def _stdio(side: Side, account: str) -> bool:
    return "SSH-2.0" in side.login(account, "-W 127.0.0.1:22 ACCOUNT", wait=4).stdout


@attack("TCP (-L)")
def _local(side: Side, account: str) -> bool:
    script = 'import socket; s = socket.create_connection(("127.0.0.1", 7001), 3); s.settimeout(3); print(s.recv(8))'
    with side.open(account, "-N -L 7001:127.0.0.1:22 ACCOUNT", until=lambda: _client_listens(side, 7001)):
        return "SSH-2.0" in side.on_client(f"timeout 5 python3 -c '{script}'").stdout


def _client_listens(side: Side, port: int) -> bool:
    return side.on_client(f"ss -Hltn | grep -q :{port}").returncode == 0


@attack("Unix socket (-L)")
def _local_socket(side: Side, account: str) -> bool:
    serve = (
        'import os, socket; s = socket.socket(socket.AF_UNIX); s.bind("/tmp/offer"); os.chmod("/tmp/offer", 0o777); '
        's.listen(); s.settimeout(20); c = s.accept()[0]; c.send(b"the inside")'
    )
    read = 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/root/l.sock"); s.settimeout(3); print(s.recv(20))'
    side.on_server(
        f"rm -f /tmp/offer; (setsid timeout 20 python3 -c '{serve}' >/dev/null 2>&1 &); sleep 0.5; test -S /tmp/offer"
    )
    arguments = "-N -L /root/l.sock:/tmp/offer ACCOUNT"
    with side.open(account, arguments, until=lambda: side.on_client("test -S /root/l.sock").returncode == 0):
        return "the inside" in side.on_client(f"timeout 5 python3 -c '{read}'").stdout


@attack("listen on the server (-R)")
def _remote(side: Side, account: str) -> bool:
    def listens() -> bool:
        return side.probe("ss -Hltn | grep -q :7100")

    with side.open(account, "-N -R 7100:127.0.0.1:22 ACCOUNT", until=listens):
        return listens()


@attack("Unix socket on the server (-R)")
def _remote_socket(side: Side, account: str) -> bool:
    def there() -> bool:
        return side.probe("test -S /tmp/planted")

    side.on_server("rm -f /tmp/planted")
    with side.open(account, "-N -R /tmp/planted:127.0.0.1:22 ACCOUNT", until=there):
        return there()


@attack("agent (-A)")
def _agent(side: Side, account: str) -> bool:
    def there() -> bool:
        return side.probe(f"find /tmp /run /home -type s -user {account} -path '*agent*' 2>/dev/null | grep -q .")

    with side.open(account, "-A ACCOUNT sleep 20", until=there, before="eval `ssh-agent` >/dev/null;"):
        return there()


@attack("X11 (-Y)")
def _x11(side: Side, account: str) -> bool:
    def listens() -> bool:
        return side.probe("ss -Hltn | grep -qE ':60[0-9][0-9] '")

    with side.open(account, "-Y ACCOUNT sleep 20", until=listens, before="export DISPLAY=:9;"):
        return listens()


@attack("sftp")
def _sftp(side: Side, account: str) -> bool:
    side.on_client("echo pwd >/root/batch")
    return "Remote working directory" in side.login(account, "-b /root/batch ACCOUNT", program="sftp").stdout


@attack("scp")
def _scp(side: Side, account: str) -> bool:
    side.on_server("rm -f /tmp/scp-*")
    for flag in ("-O", "-s"):
        side.login(account, f"{flag} /etc/hostname ACCOUNT:/tmp/scp{flag}", program="scp", wait=5)
    return side.probe("ls /tmp/scp-* >/dev/null 2>&1")


@attack("rc file")
def _rc(side: Side, account: str) -> bool:
    """Even if somebody managed to write the file."""
    side.on_server(
        f"set -e; home=$(getent passwd {account} | cut -d: -f6); mkdir -p $home/.ssh; rm -f /tmp/rc-was-here\n"
        "echo 'touch /tmp/rc-was-here' >$home/.ssh/rc; chmod 755 $home/.ssh $home/.ssh/rc"
    )
    side.login(account, "ACCOUNT true", wait=4)
    side.on_server(
        f"home=$(getent passwd {account} | cut -d: -f6); rm $home/.ssh/rc; rmdir $home/.ssh 2>/dev/null || :"
    )
    return side.probe("test -e /tmp/rc-was-here")


@attack("environment")
def _environment(side: Side, account: str) -> bool:
    """What the command was given, by the client and by a file."""
    side.on_server(
        f"set -e; home=$(getent passwd {account} | cut -d: -f6); mkdir -p $home/.ssh\n"
        "echo EVIL_FILE=1 >$home/.ssh/environment; chmod 755 $home/.ssh; chmod 644 $home/.ssh/environment"
    )
    # No other attack sleeps as long, and may be asleep still.
    sent = "-o SetEnv=EVIL_SENT=1 ACCOUNT sleep 23"

    def newest(of: str) -> str:
        return side.on_server(f"tr '\\0' '\\n' </proc/$(pgrep -n -u {account} {of})/environ 2>/dev/null || :")

    if account == CONTROL:
        with side.open(account, sent, until=lambda: "sleep 23" in map(str.strip, side.processes(account))):
            seen = newest("-xf 'sleep 23'")
    else:
        # The program that a session is for is the last that was started.
        with side.open(account, sent, until=lambda: side.serves(account)):
            seen = newest("")
    assert "HOME=" in seen
    side.on_server(
        f"home=$(getent passwd {account} | cut -d: -f6); rm $home/.ssh/environment; rmdir $home/.ssh 2>/dev/null || :"
    )
    return "EVIL" in seen


@attack("tunnel (-w)")
def _tunnel(side: Side, account: str) -> bool:
    """Only root may make the device, so root is what shows that it can be made."""
    account = "root" if account == CONTROL else account

    def there() -> bool:
        return side.probe("ip -o link show type tun | grep -q .")

    with side.open(account, "-N -w any:any ACCOUNT", until=there):
        return there()


def refused(side: Side, name: str) -> None:
    """The attack succeeds with the account that may do everything; as the client, the same key fails, and is good for its own."""
    assert ATTACKS[name](side, CONTROL), "the attack was not delivered"
    assert side.served(), "the key was good for nothing"
    assert not ATTACKS[name](side, "bk-web1")
    assert side.served(), "the client was locked out"
    assert ATTACKS[name](side, CONTROL), "the attack was not delivered any more"


@pytest.mark.parametrize("name", ATTACKS)
def test_only_the_account_that_may(side: Side, name: str) -> None:
    with side.unchanged():
        refused(side, name)


@pytest.mark.parametrize(("name", "word"), [("web1", "serve restic"), ("store", "sftp-server"), ("arch", "borg serve")])
def test_each_key_runs_its_one_command(side: Side, name: str, word: str) -> None:
    account = f"bk-{name}"
    with side.open(account, "ACCOUNT id", key=name, until=lambda: word in str(side.processes(account))):
        lines = [line for line in side.processes(account) if not line.startswith("sshd")]
        assert any(word in line and f"{VAULT}/{name}--vault" in line for line in lines), lines
        environment = side.on_server(f"pid=$(pgrep -n -u {account}); tr '\\0' '\\n' </proc/$pid/environ")
        assert sorted(line.partition("=")[0] for line in environment.split()) == ["HOME", "LC_ALL", "PATH"]
        assert side.on_server(f"grep Umask /proc/$(pgrep -n -u {account})/status").split()[1] == "0077"
    assert side.login(account, key="victim").returncode == 255, "another client's key opens it"


def test_both_layers_are_there(side: Side) -> None:
    """Each layer alone stops most of the attacks, so that one is lost has to be seen otherwise."""
    lines = side.on_server("cat /etc/ssh/authorized_keys.d/bk-*").splitlines()
    for line in lines:
        assert line.startswith(BOTH["restrict"] + BOTH["one command"]), line
    settings = side.on_server("sshd -T -C user=bk-web1,host=h,addr=192.0.2.1").splitlines()
    assert "disableforwarding yes" in settings
    for keyword in (
        "permittty", "permituserrc", "allowtcpforwarding", "allowstreamlocalforwarding", "allowagentforwarding",
        "x11forwarding", "permittunnel", "gatewayports", "passwordauthentication",
    ):  # fmt: skip
        assert f"{keyword} no" in settings
    assert [line for line in settings if line.startswith("acceptenv")] == ["acceptenv HOLDFAST_NONE"]


def test_nothing_that_sshd_reads_can_be_written(side: Side) -> None:
    """Nor anything else of the server, but the client's own data and what everybody may write to."""
    places = "/etc /usr /var/lib /srv /root /home"
    for account in ("bk-web1", "bk-store"):
        own = f"{VAULT}/{account[3:]}--vault"
        other = f"-writable -not -type l -not -path '{own}/*'"
        search = f"setpriv --reuid={account} --regid={account} --init-groups find {places} {own} {other} 2>/dev/null"
        assert side.on_server(f"{search} || :").split() == [own]


def test_sftp_reaches_its_own_directory_only(side: Side) -> None:
    """Not append-only, but confined: another client's data and the server's files cannot be read."""
    own, other = f"{VAULT}/store--vault", f"{VAULT}/victim--vault"

    def get(path: str) -> bool:
        side.on_client(f"rm -f /root/got; printf 'get {path} /root/got\\n' >/root/batch")
        side.login("bk-store", "-b /root/batch ACCOUNT", key="store", program="sftp")
        return side.on_client("test -s /root/got").returncode == 0

    with side.unchanged():
        side.on_server(f"install -o bk-victim -m 644 /etc/hostname {other}/precious; test -r /etc/hostname")
        side.on_client("printf 'put /etc/hostname mine\\n' >/root/batch")
        side.login("bk-store", "-b /root/batch ACCOUNT", key="store", program="sftp")
        assert get(f"{own}/mine")
        for path in (f"{other}/precious", f"{own}/../victim--vault/precious", "/etc/hostname", "/etc/ssh/sshd_config"):
            assert not get(path), path
        assert get(f"{own}/mine")
        assert get("mine")
        side.on_server(f"rm {other}/precious {own}/mine")


def test_maintenance_locks_out(side: Side) -> None:
    for flag in ("web1--vault", "all"):
        assert side.served()
        side.on_server(f"touch /etc/holdfast/serve/maintenance/{flag}")
        done = side.login("bk-web1", "-T ACCOUNT")
        side.on_server(f"rm /etc/holdfast/serve/maintenance/{flag}")
        assert (done.returncode, done.stderr) == (75, "holdfast: web1--vault is in maintenance: try again later\n")
    assert side.served()


def test_a_line_inserted_by_hand(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """sshd takes the first line of a key: this one gives a shell, until the next run."""
    path = "/etc/ssh/authorized_keys.d/bk-web1"
    before = side.on_server(f"cat {path}")
    with side.unchanged():
        side.on_server(f"(echo '{side.keys['web1']}'; cat {path}) >{path}.new; cat {path}.new >{path}; rm {path}.new")
        assert ATTACKS["command"](side, "bk-web1"), "the attack was not delivered"
        with side.open("bk-web1", "ACCOUNT sleep 290", until=lambda: "sleep 290" in str(side.processes("bk-web1"))):
            assert "sleep 290" in str(side.processes("bk-web1"))
            result = side.deploy(everybody())
            assert result["foreign"] == ["bk-web1 line 1", "bk-web1 line 2"]
            assert result["sessions_ended"] == ["bk-web1"]
            assert side.processes("bk-web1") == []
        assert side.on_server(f"cat {path}") == before
        # Whoever ran the playbook reads it, and which key it was.
        shown = side.on_client("ssh-keygen -lf /root/keys/web1.pub").stdout.split()[1]
        told = f"bk-web1: lines of its key file do not belong there: 1 ({shown}), 2 ({shown})"
        assert unwrapped(told) in unwrapped(result["output"])
        assert "bk-web1: lines" not in side.deploy(everybody())["output"]
        assert not ATTACKS["command"](side, "bk-web1")
        assert side.served()


def test_revocation_ends_sessions_and_keeps_data(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """Also of a connection that only waits; the account is locked, its UID and data stay, and it can come back."""
    uid, data = side.on_server("id -u bk-web1"), side.hashes(*CLIENTS)
    clients = {name: kind for name, kind in CLIENTS.items() if name != "web1"}
    with (
        side.open("bk-web1", "ACCOUNT", until=lambda: side.processes("bk-web1")),
        side.open("bk-web1", "-N ACCOUNT", until=lambda: str(side.processes("bk-web1")).count("sshd") > 1),
    ):
        assert str(side.processes("bk-web1")).count("sshd") > 1
        announced = side.deploy(everybody(clients=clients), "--check")
        assert announced["sessions_ended"] == ["bk-web1"]
        assert side.processes("bk-web1")
        result = side.deploy(everybody(clients=clients))
        assert side.processes("bk-web1") == []
    for key in ("revoked", "locked", "sessions_ended"):
        assert result[key] == announced[key] == ["bk-web1"]
    assert side.login("bk-web1").returncode == 255
    assert not side.probe("test -e /etc/ssh/authorized_keys.d/bk-web1")
    assert (side.on_server("id -u bk-web1"), side.hashes(*CLIENTS)) == (uid, data)
    assert side.served("bk-victim", "victim")
    # Even with its line planted again it stays out, and the next run takes the line away.
    side.on_server(f"echo '{side.keys['web1']}' >/etc/ssh/authorized_keys.d/bk-web1")
    assert side.login("bk-web1", "ACCOUNT id").returncode == 255
    assert side.deploy(everybody())["unlocked"] == ["bk-web1"]
    assert (side.on_server("id -u bk-web1"), side.hashes(*CLIENTS)) == (uid, data)
    assert side.served()


def test_who_comes_again_and_again_stops_nobody(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """A client whose key is replaced has one that works, and uses it without a pause while its old sessions are ended."""
    replaced = everybody(web1={"public_keys": [other_key(side)]})
    side.deploy(everybody(web1={"public_keys": [side.keys["web1"], other_key(side)]}))
    with (
        side.open("bk-web1", "-N ACCOUNT", until=lambda: side.processes("bk-web1")),
        side.keeps_coming("bk-web1", "other"),
    ):
        old = set(side.on_server("pgrep -u bk-web1").split())
        result = side.deploy(replaced)
        assert (result["sessions_ended"], result["sessions_left"]) == (["bk-web1"], [])
        assert wait_for(lambda: side.processes("bk-web1"), 20), "the new key is good"
        assert not old & set(side.on_server("pgrep -u bk-web1").split())
        assert "changed=0" in side.deploy(replaced)["output"]
    assert side.login("bk-web1").returncode == 255, "the old key is not"
    side.deploy(everybody())
    assert side.served()


def unwrapped(text: str) -> str:
    """Without the line breaks that Ansible puts into what it warns of."""
    return "".join(text.split())


def other_key(side: Side) -> str:
    """Another key that the client has."""
    make = "cd /root/keys; [ -e other ] || ssh-keygen -q -t ed25519 -N '' -C other -f other; cat other.pub"
    return side.on_client(make).stdout.strip()


def sources(side: Side) -> list[str]:
    """Where the client comes from, and where it does not."""
    return [*side.lab.addresses(side.client), "192.0.2.77"]


NARROWED: dict[str, Callable[[Side], tuple[dict[str, Any], dict[str, Any]]]] = {
    "kind": lambda _side: ({"kind": "sftp"}, {"kind": "rclone"}),
    "append-only": lambda _side: ({"kind": "borg", "append_only": False}, {"kind": "borg", "append_only": True}),
    "quota": lambda _side: ({"kind": "borg", "quota": "2G"}, {"kind": "borg", "quota": "1G"}),
    "addresses": lambda side: ({"kind": "borg", "from": sources(side)}, {"kind": "borg", "from": ["192.0.2.77"]}),
}


@pytest.mark.parametrize("what", NARROWED)
def test_who_may_do_less_has_to_come_again(side: Side, everybody: Callable[..., dict[str, Any]], what: str) -> None:
    """A session goes on as it began, so it ends when its client may do less. Where nothing changed for it, it goes on."""
    wider, narrower = NARROWED[what](side)
    side.deploy(everybody(web1=wider))
    with side.open("bk-web1", "ACCOUNT", until=lambda: side.serves("bk-web1")):
        before = side.on_server("pgrep -u bk-web1")
        assert not side.deploy(everybody(web1=wider))["changed"]
        more = {**CLIENTS, "new": "sftp"}
        side.keys["new"] = side.keys.get("new") or other_key(side)
        side.deploy(everybody(clients=more, web1=wider))
        assert side.on_server("pgrep -u bk-web1") == before
        checked = side.deploy(everybody(clients=more, web1=narrower), "--check")
        assert side.on_server("pgrep -u bk-web1") == before
        real = side.deploy(everybody(clients=more, web1=narrower))
        assert side.on_server("pgrep -u bk-web1 || :") == ""
        assert changes(checked) == changes(real)
        assert "changed=0" in side.deploy(everybody(clients=more, web1=narrower))["output"]
    side.deploy(everybody())
    assert side.served()


def changes(deployed: dict[str, Any]) -> str:
    """How many tasks changed something."""
    return str(deployed["output"].rpartition("changed=")[2].split()[0])


def test_a_key_is_good_from_declared_addresses_only(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    side.deploy(everybody(web1={"from": ["192.0.2.77", "2001:db8::/32"]}))
    assert side.login("bk-web1").returncode == 255
    addresses = side.lab.addresses(side.client)
    assert side.deploy(everybody(web1={"from": addresses}))["changed_keys"] == ["bk-web1 vault"]
    assert side.served()
    side.deploy(everybody())


def test_refused_logins_shut_out_nobody_from_a_declared_address(
    side: Side, everybody: Callable[..., dict[str, Any]]
) -> None:
    """Clients behind one router or tunnel come from one address, and one of them is hostile."""
    # Other attacks fail too often to be done with penalties. OpenSSH before 9.8 knows none.
    knows = "persourcepenalties" in side.on_server("rm -f /etc/ssh/sshd_config.d/20-lab.conf; sshd -T")
    shared = {"from": side.lab.addresses(side.client)}

    def served_after_refusals() -> bool:
        side.on_server("systemctl restart ssh")  # nobody is shut out yet
        assert side.served("bk-victim", "victim")
        side.login("nobody-at-all", "ACCOUNT", wait=30)
        for _attempt in range(12):
            side.login("bk-web1", "ACCOUNT", key="victim")
        return side.served("bk-victim", "victim")

    try:
        side.deploy(everybody())
        assert served_after_refusals() != knows, "the attack was not delivered"
        side.deploy(everybody(victim=shared, web1=shared))
        assert served_after_refusals()
    finally:
        disable = "echo PerSourcePenalties no >/etc/ssh/sshd_config.d/20-lab.conf;" if knows else ""
        side.on_server(f"{disable} systemctl restart ssh")
        side.deploy(everybody())


def test_sessions_of_one_client_are_bounded(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """Each is some processes of the server. Who asks for more is told, and others are served meanwhile."""
    side.deploy(everybody())
    many = MOST_SESSIONS + 20

    def running(word: str) -> int:
        return sum(word in line for line in side.processes("bk-store"))

    def come(arguments: str) -> None:
        """Log in as often, slowly enough for sshd to let everybody in, and stay."""
        login = side.ssh("bk-store", arguments, key="store")
        script = f"for one in $(seq {many}); do (sleep 200 | {login} 2>>/root/said) >/dev/null 2>&1 & sleep 0.15; done"
        side.on_client(f"rm -f /root/said; touch /root/said; {script}", timeout=120)

    def others_are_served() -> bool:
        """Told by how borg ends with its input; `served` would end what attacks."""
        return side.login("bk-arch", key="arch").returncode == 0

    try:
        come("ACCOUNT")
        assert wait_for(lambda: "sessions here" in side.on_client("cat /root/said").stdout, 20), "as many as it likes"
        assert others_are_served()
        assert running("sftp-server -u") == MOST_SESSIONS
        side.on_client("pkill -x ssh; pkill -x sleep")
        assert wait_for(lambda: not side.processes("bk-store"), 20)
        # Nor may it have connections without any session, which nothing of ours would ever see.
        come("-N ACCOUNT")
        assert running("sshd") > MOST_SESSIONS, "the attack was not delivered"
        assert others_are_served()
        assert wait_for(lambda: not side.processes("bk-store"), 40), "who asks for nothing stays"
    finally:
        side.on_client("pkill -x ssh; pkill -x sleep")
    assert side.served("bk-store", "store")


def test_hostile_public_keys_stop_nobody(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """Three clients at a time are hostile, and each is told what is wrong with its own."""
    evil = side.keys["victim"].split()[1]
    rsa = side.on_client(
        "ssh-keygen -q -t rsa -b 1024 -N '' -f /root/rsa <<n; cat /root/rsa.pub; rm /root/rsa*\nn"
    ).stdout
    assert rsa.startswith("ssh-rsa AAAA"), "the attack was not delivered"
    hostile = [
        {
            "web1": ("\n".join([side.keys["web1"], f"ssh-ed25519 {evil}"]), "more than one line"),
            "store": (f'command="/bin/sh" {side.keys["store"]}', "something before the key"),
            "arch": (rsa, "not an ed25519 public key"),
        },
        {
            "web1": ("https://example.net/web1.keys", "not an ed25519 public key"),
            "store": ("A" * 1_000_000, "1000000 characters long"),
            "arch": (side.keys["victim"], "also that of bk-victim vault"),
        },
    ]
    before = side.on_server("cat /etc/ssh/authorized_keys.d/*")
    with side.unchanged():
        for delivered in hostile:
            result = side.deploy(
                everybody(**{name: {"public_keys": [public]} for name, (public, _why) in delivered.items()})
            )
            assert set(result["refused"]) == {f"bk-{name}" for name in delivered}
            for name, (_public, why) in delivered.items():
                assert why in str(result["refused"][f"bk-{name}"])
                assert len(json.dumps(result["refused"][f"bk-{name}"])) < 400
            assert sorted(result["kept"]) == sorted(f"bk-{name} vault" for name in delivered)
            assert not result["changed"]
        assert side.on_server("cat /etc/ssh/authorized_keys.d/*") == before
        assert side.served("bk-victim", "victim")


def test_a_configuration_that_would_allow_more_is_refused(side: Side, everybody: Callable[..., dict[str, Any]]) -> None:
    """Another file that comes first wins in sshd: the role says so, and leaves what there was."""
    path, other = "/etc/ssh/sshd_config.d/10-holdfast.conf", "/etc/ssh/sshd_config.d/05-theirs.conf"
    before = side.on_server(f"cat {path}")
    with side.unchanged():
        side.on_server(f"printf 'Match User bk-store\\n  PermitTTY yes\\n  AllowTcpForwarding yes\\n' >{other}")
        output = side.deploy(everybody(), fails=True)["output"]
        side.on_server(f"rm {other}")
        assert "bk-store" in output
        assert "permittty is" in output.lower()
        assert side.on_server(f"cat {path}") == before
        assert not side.deploy(everybody())["changed"]
        assert wait_for(side.served, 1)


@pytest.mark.parametrize("match", ["Address ADDRESSES", "LocalPort 2222"])
def test_what_would_win_for_some_clients_is_refused(
    side: Side, everybody: Callable[..., dict[str, Any]], match: str
) -> None:
    """A client from such a network or port would get sftp instead of its one command, and delete what is append-only."""
    path, other = "/etc/ssh/sshd_config.d/10-holdfast.conf", "/etc/ssh/sshd_config.d/05-theirs.conf"
    before = side.on_server(f"cat {path}")
    port = "-o Port=2222 " if match.endswith("2222") else ""
    match = match.replace("ADDRESSES", ",".join(side.lab.addresses(side.client)))

    def served_after(criteria: str) -> bool:
        listen = "Port 22\\nPort 2222\\n" if port else ""
        side.on_server(
            f"printf '{listen}Match {criteria}\\n  ForceCommand internal-sftp\\n' >{other};"
            " systemctl stop ssh.socket; systemctl restart ssh"
        )
        side.on_client("echo pwd >/root/batch")
        done = side.login("bk-web1", f"{port}-b /root/batch ACCOUNT", program="sftp")
        return "Remote working directory" not in done.stdout

    with side.unchanged():
        try:
            assert not served_after(match), "the attack was not delivered"
            output = side.deploy(everybody(), fails=True)["output"]
            assert f"{other} line" in output
            assert "has forcecommand internal-sftp" in output
            assert side.on_server(f"cat {path}") == before
            assert served_after(f"{match} User *,!bk-*")
            assert not side.deploy(everybody())["changed"]
        finally:
            side.on_server(f"rm -f {other}; systemctl restart ssh")
        assert wait_for(side.served, 1)
