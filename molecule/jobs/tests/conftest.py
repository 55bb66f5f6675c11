"""The two clients of this scenario, and all jobs that they have."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, escrow_key, released_restic

SCENARIO = Path(__file__).parents[1]
HOSTS = ("web1", "db1")
# Between them every character that systemd, a shell, restic or Ansible could take for its own.
ODD = [
    "/srv/odd/two  words ",
    "/srv/odd/%n %% %i",
    "/srv/odd/$HOME ${HOME} $$",
    "/srv/odd/\"double\" 'single' `id`",
    "/srv/odd/back\\slash \\n \\x41",
    "/srv/odd/semi; hash # and & pipe |",
    "/srv/odd/glob* [a-z] ?{x,y}",
    "/srv/odd/new\nline\ttab",
    "/srv/odd/-n --leading",
    "/srv/odd/ünï ☃ ~ ! @ = : , +",
]
CANARIES = {
    "/root/.canary": "600",
    "/tmp/canary": "600",
    "/var/tmp/canary": "600",
    "/usr/lib/modules/canary.ko": "600",
    "/boot/canary": "600",
    "/etc/canary": "000",
    "/srv/disk/canary": "000",
    "/srv/closed/canary": "600",
    "/var/lib/canary/canary": "640",
}
CANARY_USER = "carol"
VARIABLE = 'it\'s "50%" of $HOME \\n'


def jobs(address: str) -> dict[str, Any]:
    """All jobs of both hosts. None starts by itself while the tests run: the calendar is far away."""
    kept = ["/srv/options/otherwise"]
    note = "echo {} $(id -un) ${{HOLDFAST_OUTCOME:-none}} ${{HOLDFAST_REASON:-none}} $HOLDFAST_UNIT >>/run/hooks.log"
    defined: dict[str, Any] = {
        "odd": {"paths": ODD, "repositories": ["main"]},
        "options": {
            "paths": ["/srv/options"],
            "optional_paths": ["/srv/missing", "/srv/optional"],
            "exclude": ["*.skip", "/srv/options/no*"],
            "exclude_if_present": [".nobackup", "LABEL:leave this out"],
            "exclude_caches": True,
            "exclude_larger_than": "1M",
            "one_file_system": True,
            "tags": ["first", "b=c"],
            "host": "fixed.name",
            "limit_download": 100000,
            "retry_lock": 0,
            "timeout": "15m",
            "cpu_quota": "50%",
            "memory_max": "1G",
            "extra_args": ["--with-atime"],
            "repositories": ["main"],
        },
        # Nothing but what is required: the defaults, in two repositories.
        "plain": {"paths": ["/srv/options"], "repositories": ["main", "far"]},
        "squeezed": {"paths": ["/srv/text", "/srv/random"], "compression": "max", "repositories": ["main"]},
        "loose": {
            "paths": ["/srv/text", "/srv/random"],
            "compression": "off",
            "pack_size": 4,
            "repositories": ["small"],
        },
        "slow": {
            "paths": ["/srv/slow"],
            "pack_size": 4,
            "limit_upload": 300,
            "read_concurrency": 3,
            "nice": 15,
            "io_class": "best-effort",
            "environment": {"ODD": VARIABLE, "GOMAXPROCS": 2},
            "timeout": 75,
            "repositories": ["narrow"],
        },
        "patient": {"paths": kept, "retry_lock": "12s", "repositories": ["small"]},
        # Another proxy than the repository's.
        "proxied": {"paths": kept, "proxy": f"http://{address}:3129", "repositories": ["far"]},
        "hooks": {
            "paths": ["/srv/options/otherwise", "/srv/made"],
            "pre": [
                note.format("pre1"),
                "mkdir -p /srv/made",
                {"command": ["/bin/sh", "-c", note.format("pre2")], "user": "nobody"},
            ],
            "post": [note.format("post1"), {"command": note.format("post2"), "user": "nobody"}],
            "repositories": ["main"],
        },
        "pre-fails": {
            "paths": kept,
            "pre": ["echo unwell >&2; exit 7", note.format("never")],
            "post": [note.format("post")],
            "repositories": ["main"],
        },
        "post-fails": {
            "paths": kept,
            "post": ["exit 8", note.format("post")],
            "repositories": ["main"],
        },
        "databases": {
            "paths": kept,
            "dumps": [
                {"kind": "postgresql"},
                {"kind": "postgresql", "name": "pg-app", "database": "app"},
                {"kind": "mariadb"},
                {"kind": "mariadb", "name": "my-app", "database": "app"},
                {"kind": "command", "name": "who", "user": "postgres", "command": ["cat", "/proc/self/status"]},
            ],
            "repositories": ["main", "far"],
        },
        "bad-dump": {
            "paths": kept,
            "dumps": [
                {
                    "kind": "command",
                    "name": "broken",
                    "user": "nobody",
                    "command": ["sh", "-c", "echo half of it; exit 3"],
                },
                {"kind": "command", "name": "good", "user": "nobody", "command": ["echo", "all of it"]},
            ],
            "repositories": ["main"],
        },
        # No files: their dumps are all there is to them.
        "dumps-only": {
            "dumps": [{"kind": "command", "name": "one", "user": "nobody", "command": ["echo", "all of it"]}],
            "repositories": ["main"],
        },
        "dumps-broken": {
            "dumps": [
                {"kind": "command", "name": "broken", "user": "nobody", "command": ["sh", "-c", "echo half; exit 3"]}
            ],
            "repositories": ["main"],
        },
        "lenient": {"paths": [*kept, "/srv/missing"], "incomplete": "ok", "repositories": ["main"]},
        "strict": {"paths": [*kept, "/srv/missing"], "repositories": ["main"]},
        "canary": {
            "paths": [
                "/root",
                "/tmp",
                "/var/tmp",
                "/usr/lib/modules",
                "/boot",
                "/etc",
                "/srv/disk",
                "/srv/closed",
                "/var/lib/canary",
                "/home",
            ],
            "repositories": ["main"],
        },
        "exact": {
            "paths": kept,
            "schedule": {"calendar": "Sun *-02-29 04:00:00 America/New_York", "spread": 0},
            "repositories": ["main"],
        },
        "spread": {"paths": kept, "schedule": {"calendar": "*-02-29 UTC", "spread": "6h"}, "repositories": ["main"]},
    }
    for job in defined.values():
        job.setdefault("schedule", {"calendar": "*-02-29 05:00 UTC", "spread": 0})
    return defined


class Client:
    """One host, its outcomes and its snapshots."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        self.proxy = f"http://{fleet.lab.addresses('web1')[0]}:3128"
        self.host = fleet.on(name)

    def sh(self, script: str, *, timeout: float = 120) -> str:
        """Run a shell script that has to end well."""
        done = self.host.run("timeout --kill-after=5 %s sh -c %s", str(timeout), script)
        assert done.rc == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    def holdfast(self, *arguments: str, timeout: float = 300) -> tuple[int, str, str]:
        """Exit code, standard output and error of the program."""
        done = self.host.run(f"timeout --kill-after=5 {timeout} holdfast {shlex.join(arguments)}")
        return done.rc, str(done.stdout), str(done.stderr)

    def outcome(self, unit: str) -> dict[str, Any]:
        """The recorded outcome of a run unit."""
        return dict(json.loads(self.host.file(f"/var/lib/holdfast/outcomes/{unit}.json").content_string))

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """All recorded outcomes."""
        found = [
            json.loads(line)
            for line in self.sh(
                "cd /var/lib/holdfast/outcomes; cat *.json | tr -d '\\n' | sed 's/}{/}\\n{/g'"
            ).splitlines()
        ]
        return {each["unit"]: each for each in found}

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """What systemd says of a unit."""
        said = self.sh(f"systemctl show --property={','.join(names)} {unit}")
        return dict(line.split("=", 1) for line in said.splitlines())

    def restic(self, repository: str, *arguments: str) -> str:
        """Ask restic as root, without leaving anything behind."""
        base = f"/etc/holdfast/secrets/{repository}"
        environment = f"RESTIC_PASSWORD_FILE={base}.password RESTIC_REPOSITORY_FILE={base}.repository"
        environment += f" HTTP_PROXY={self.proxy}" if repository == "far" else ""
        return self.sh(f"{environment} restic --no-lock --no-cache {shlex.join(arguments)}")

    def nodes(self, unit: str) -> dict[str, dict[str, Any]]:
        """Every file in the last snapshot of a run unit, by path."""
        said = self.restic(unit.split("--")[1], "ls", "--json", str(self.outcome(unit)["snapshot"]))
        found = [json.loads(line) for line in said.splitlines()]
        return {each["path"]: each for each in found if each.get("type")}

    def snapshot(self, unit: str) -> dict[str, Any]:
        """The last snapshot of a run unit, as restic describes it."""
        said = self.restic(unit.split("--")[1], "snapshots", "--json", str(self.outcome(unit)["snapshot"]))
        return dict(json.loads(said)[0])

    def wait(self, units: list[str], seconds: float = 300) -> None:
        """Wait until there is an outcome of each run unit, and no run any more."""
        script = (
            f"cd /var/lib/holdfast; for i in $(seq {seconds:.0f}); do missing=; for unit in {' '.join(units)}; do"
            " test -e outcomes/$unit.json || missing=yes; done;"
            ' test -n "$missing" || exit 0; sleep 1; done; ls outcomes; exit 1'
        )
        self.sh(script, timeout=seconds + 30)


def starts(client: Client) -> Counter[str]:
    """How often systemd has started each run unit since the boot, as its journal says: it forgets units that ended well."""
    said = client.sh(
        "journalctl -b --output=json --output-fields=UNIT _PID=1 MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5"
    )
    units = [str(json.loads(line).get("UNIT")) for line in said.splitlines()]
    # Positive control: the journal does tell of starts.
    assert units
    return Counter(unit for unit in units if unit.startswith("holdfast-") and "@" not in unit)


def elapse(client: Client, unit: str) -> float:
    """When a timer elapses next, in seconds since 1970."""
    name = f"holdfast-{unit}.timer".replace("-", "_2d").replace(".", "_2e")
    said = client.sh(
        f"busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/{name}"
        " org.freedesktop.systemd1.Timer NextElapseUSecRealtime"
    )
    return int(said.split()[1]) / 1e6


class Watch:
    """What could be seen of a run while it went on."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.shares: list[float | None] = []
        self.shown = ""
        self.process: dict[str, str] = {}

    def follow(self, unit: str) -> Watch:
        """Look every two seconds until it has ended."""
        service = f"holdfast-{unit}.service"
        for _turn in range(120):
            time.sleep(2)
            (found,) = json.loads(self.client.holdfast("status", "--json", unit)[1])["units"]
            if not found["running"]:
                break
            self.shares.append(found["percent_done"])
            if found["percent_done"] is not None:
                shown = self.client.holdfast("status", unit)[1]
                self.shown = shown if "%" in shown else self.shown
            pid = self.client.show(service, "MainPID")["MainPID"]
            # Until systemd has executed it, it has systemd's own environment.
            if not self.process and "restic" in self.client.sh(f"readlink /proc/{pid}/exe || true"):
                self.process = {
                    "environment": self.client.sh(f"tr '\\0' '\\n' </proc/{pid}/environ"),
                    "arguments": self.client.sh(f"tr '\\0' '\\n' </proc/{pid}/cmdline"),
                    "nice": self.client.sh(
                        f"ps -o ni= -p {pid} 2>/dev/null || cut -d' ' -f19 /proc/{pid}/stat"
                    ).strip(),
                    "io": self.client.sh(f"ionice -p {pid}").strip(),
                    "capabilities": self.client.sh(f"grep ^CapEff /proc/{pid}/status").split()[1],
                }
        return self


@pytest.fixture(scope="session")
def clients(fleet: Fleet) -> dict[str, Client]:
    """The hosts by name."""
    return {name: Client(fleet, name) for name in HOSTS}


@pytest.fixture(params=HOSTS)
def client(request: pytest.FixtureRequest, clients: dict[str, Client]) -> Client:
    """Each host in turn."""
    return clients[request.param]


@pytest.fixture(scope="session")
def watches(fleet: Fleet, clients: dict[str, Client]) -> Iterator[dict[str, Future[Watch]]]:
    """Start every job on every host as a person would; the slow one goes on while others are looked at."""
    units = [
        f"{job}--{name}" for job, value in fleet.variables["backup_jobs"].items() for name in value["repositories"]
    ]
    units = [unit for unit in units if not unit.startswith(("slow--", "patient--"))]
    pool = ThreadPoolExecutor()

    def start(client: Client) -> Future[Watch]:
        client.sh(
            "mkdir -p /etc/holdfast/sources.d/options.d; printf '# a role\n/srv/dropped in\n' >/etc/holdfast/sources.d/options.d/role.paths"
        )
        client.sh("touch /run/hooks.log; chmod 666 /run/hooks.log; touch -a -d 2020-01-01 /srv/options/kept.txt")
        assert client.holdfast("run", "slow")[0] == 0
        watch = pool.submit(Watch(client).follow, "slow--narrow")
        for job in dict.fromkeys(unit.split("--")[0] for unit in units):
            code, said, wrong = client.holdfast("run", job)
            assert code == 0, said + wrong
        client.wait(units)
        return watch

    yield dict(zip(HOSTS, pool.map(start, clients.values())))
    pool.shutdown()


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """Two clients with files and databases, not yet provisioned."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "fleet"
    folder.mkdir(exist_ok=True)
    fleet = Fleet("jobs", folder, {"backup_clients": list(HOSTS)})
    address = fleet.lab.addresses("web1")[0]
    _key, public = escrow_key(folder) if not (folder / "backup-escrow.key").exists() else known_key(folder)
    fleet.variables = {
        "backup_escrow": {"recipients": [public]},
        "backup_jobs": jobs(address),
        "backup_on_failure": ["sh", "-c", "echo $HOLDFAST_UNIT $HOLDFAST_OUTCOME >>/run/told.log"],
    }
    for name in HOSTS:
        fleet.host_variables[name] = {
            "backup_repositories": {
                "main": {},
                # Nobody gets there but through the proxy.
                "far": {
                    "access": "url",
                    "url": f"rest:http://far.invalid:8500/{name}/",
                    "proxy": f"http://{address}:3128",
                },
                "small": {},
                "narrow": {},
            }
        }
    fleet.host_variables["db1"].update(released_restic())
    told = json.dumps(
        {"odd": ODD, "canaries": CANARIES, "closed": ["/srv/closed"], "canary_user": CANARY_USER}
    ).encode()
    script = (SCENARIO / "prepare.py").read_text()

    def prepare(name: str) -> None:
        fleet.lab.exec(name, ["python3", "-c", script], input=told, check=True, timeout=120)

    if fleet.on("web1").file("/srv/options").exists:
        return fleet
    with ThreadPoolExecutor() as pool:
        list(pool.map(prepare, HOSTS))
    # What only one of them has: a time zone and a host name of its own; a rest-server and its proxies for both.
    zone = "ln -sf /usr/share/zoneinfo/Asia/Kolkata /etc/localtime; hostname elsewhere"
    fleet.lab.exec("db1", ["sh", "-c", zone], check=True)
    proxy = (SCENARIO / "proxy.py").read_bytes()
    services = (
        "cat >/usr/local/lib/proxy.py; systemd-run --unit=proxy python3 /usr/local/lib/proxy.py 3128 /run/proxy.log;"
        " systemd-run --unit=other-proxy python3 /usr/local/lib/proxy.py 3129 /run/other-proxy.log;"
        " systemd-run --unit=far restic-rest-server --listen=127.0.0.1:8500 --path=/srv/far --no-auth"
    )
    fleet.lab.exec("web1", ["sh", "-c", services], input=proxy, check=True)
    return fleet


def known_key(folder: Path) -> tuple[Path, str]:
    """The key of an earlier run of the same hosts."""
    path = folder / "backup-escrow.key"
    found = next(line for line in path.read_text().splitlines() if line.startswith("# public key: "))
    return path, found.split(": ")[1]
