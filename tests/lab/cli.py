"""The command line."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import doctor, hosts, mirror, owner, scenario, services
from .api import Lab, Report, collect_garbage, prepare
from .shell import LabError
from .spec import OPTIONS, parse_host
from .state import Process, load_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors are one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab down` ends what was started.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Test hosts for holdfast.backup.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="boot hosts; those that are up stay")
    up.add_argument("lab")
    up.add_argument("hosts", nargs="*", metavar="HOST=SUITE[:OPTION,…]", help=f"options: {OPTIONS}")
    up.add_argument("--owner", type=int, metavar="PID", help="end the lab when this process ends")
    up.add_argument("--timeout", type=float, default=120, help="seconds for a host to boot")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="end a lab, or some of its hosts")
    down.add_argument("lab")
    down.add_argument("hosts", nargs="*")
    down.set_defaults(run=_down)

    listing = commands.add_parser("list", help="show labs and hosts")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_list)

    inventory = commands.add_parser("inventory", help="print an Ansible inventory")
    inventory.add_argument("lab")
    inventory.add_argument("--group", action="append", default=[], metavar="GROUP=HOST,…")
    inventory.set_defaults(run=_inventory)

    execute = commands.add_parser("exec", help="run a command on a host")
    execute.add_argument("lab")
    execute.add_argument("host")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    execute.set_defaults(run=_exec)

    session = commands.add_parser("ssh", help="log in on a host")
    session.add_argument("lab")
    session.add_argument("host")
    session.add_argument("--user", default="root")
    session.set_defaults(run=_ssh)

    for name, help_text in (
        ("restart", "shut a host down and boot it from the same disk"),
        ("kill", "SIGKILL a host"),
        ("wipe", "boot a host from a fresh disk under the same name"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("lab")
        command.add_argument("host")
        command.set_defaults(run=_again, action=name)

    releases = commands.add_parser("mirror", help="build and describe the mirror of tool releases")
    releases.add_argument("--json", action="store_true")
    releases.add_argument("--again", action="store_true", help="download and pack again")
    releases.set_defaults(run=_mirror)

    scenarios = commands.add_parser("molecule", help="boot a scenario's platforms (JSON on standard input)")
    scenarios.add_argument("lab")
    scenarios.add_argument("instance_config", type=Path)
    scenarios.set_defaults(run=_molecule)

    base = commands.add_parser("base", help="build bases and layers ahead of time")
    base.add_argument("hosts", nargs="+", metavar="SUITE[:layer=NAME]")
    base.set_defaults(run=_base)

    check = commands.add_parser("doctor", help="say what this machine lacks")
    check.set_defaults(run=_doctor)
    install = commands.add_parser("install", help="install the packages that are missing")
    install.set_defaults(run=_install)
    garbage = commands.add_parser("gc", help="end labs whose owner or processes are gone")
    garbage.set_defaults(run=_gc)

    watch = commands.add_parser("_watch")
    watch.add_argument("lab")
    watch.add_argument("pid", type=int)
    watch.add_argument("start", type=int)
    watch.set_defaults(run=_watch)
    return parser


def _up(options: argparse.Namespace) -> None:
    def say(report: Report) -> None:
        print(
            f"{report.name:20} {report.suite:9} {' '.join(report.addresses):40} {report.state} {report.seconds:.1f} s",
            flush=True,
        )

    Lab(options.lab).up(options.hosts, owner=options.owner, timeout=options.timeout, said=say)


def _down(options: argparse.Namespace) -> None:
    Lab(options.lab).down(options.hosts or None)


def _list(options: argparse.Namespace) -> None:
    collect_garbage()
    result: dict[str, Any] = {}
    for state in load_all():
        result[state.name] = {
            "owner": state.owner.pid if state.owner else None,
            "identity_file": str(state.directory / "id_ed25519"),
            "known_hosts": str(state.directory / "known_hosts"),
            "hosts": {
                host.name: {
                    "suite": host.suite,
                    "options": host.options,
                    "addresses": hosts.addresses(state, host),
                    "up": host.process is not None and host.process.alive,
                }
                for host in state.hosts.values()
            },
        }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, data in result.items():
        print(name + (f" (owner {data['owner']})" if data["owner"] else ""))
        for host, facts in data["hosts"].items():
            kind = facts["suite"] + (f":{facts['options']}" if facts["options"] else "")
            mark = "up" if facts["up"] else "down"
            print(f"  {host:20} {mark:5} {kind:30} {' '.join(facts['addresses'])}")


def _inventory(options: argparse.Namespace) -> None:
    groups = {}
    for text in options.group:
        group, equals, members = text.partition("=")
        if not equals:
            raise LabError(f"'{text}' names no hosts: write {text}=host1,host2.")
        groups[group] = list(filter(None, members.split(",")))
    print("\n".join(yaml_lines(Lab(options.lab).inventory(groups))))


def yaml_lines(value: dict[str, Any], depth: int = 0) -> list[str]:
    """Nested dictionaries of text as YAML."""
    lines = []
    for key, inner in value.items():
        margin = "  " * depth
        if isinstance(inner, dict) and inner:
            lines += [f"{margin}{key}:", *yaml_lines(inner, depth + 1)]
        else:
            lines.append(f"{margin}{key}: {json.dumps(inner)}")
    return lines


def _exec(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("There is no command; write it after --.")
    line = Lab(options.lab).ssh_command(options.host)
    return subprocess.call([*line, "-o", "BatchMode=yes", "--", shlex.join(command)])


def _ssh(options: argparse.Namespace) -> int:
    line = Lab(options.lab).ssh_command(options.host, options.user)
    return subprocess.call(line)


def _again(options: argparse.Namespace) -> None:
    result = getattr(Lab(options.lab), options.action)(options.host)
    print(f"{options.host}: {result or 'killed'}")


def _mirror(options: argparse.Namespace) -> None:
    releases = mirror.build(again=options.again)
    if options.json:
        print(json.dumps(mirror.describe(), indent=2))
        return
    for release in releases:
        print(f"{release.sha256}  {services.MIRROR_URL}{release.path}")


def _molecule(options: argparse.Namespace) -> None:
    print("\n".join(scenario.create(options.lab, json.load(sys.stdin), options.instance_config)))


def _base(options: argparse.Namespace) -> None:
    doctor.require()
    for text in options.hosts:
        prepare(parse_host(f"any={text}"))


def _doctor(_options: argparse.Namespace) -> int:
    problems = doctor.examine()
    for problem in problems:
        print(problem if problem.fatal else f"(optional) {problem}")
    if not problems:
        print("Nothing is missing.")
    return 1 if any(problem.fatal for problem in problems) else 0


def _install(_options: argparse.Namespace) -> None:
    packages = doctor.install()
    print(f"Installed: {' '.join(packages)}" if packages else "Nothing is missing.")


def _gc(_options: argparse.Namespace) -> None:
    for name in collect_garbage():
        print(f"ended {name}")


def _watch(options: argparse.Namespace) -> None:
    owner.watch(options.lab, Process(options.pid, options.start))
