# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of `holdfast`. Modules are imported when a command needs them: the program starts around every run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Callable

from .host import Host, ProgramError, version
from .text import complain, say

USAGE = 2
FAILED_SUFFIX = "--failed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="holdfast", description="Backups of this host.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"holdfast {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=description, description=description, allow_abbrev=False)

    status = add("status", "What became of the last run of each job, and when the next one is.")
    status.add_argument("job", nargs="?", metavar="JOB", help="JOB or JOB--REPOSITORY")
    status.add_argument("--json", action="store_true", help="for programs")
    run = add("run", "Back up now.")
    run.add_argument("job", nargs="+", metavar="JOB", help="JOB (in all its repositories) or JOB--REPOSITORY")
    run.add_argument("--wait", action="store_true", help="wait, and end with 1 if a run is not ok")
    run.add_argument("--dry-run", action="store_true", help="only say what would be saved; without hooks and dumps")
    log = add("log", "What the last run said.")
    log.add_argument("job", metavar="JOB", help="JOB or JOB--REPOSITORY")
    snapshots = add("snapshots", "What can be restored.")
    snapshots.add_argument("job", metavar="JOB", help="JOB, or JOB--REPOSITORY if it has several repositories")
    snapshots.add_argument("--json", action="store_true", help="for programs")
    restore = add("restore", "Restore files of a job below a directory, with owners and attributes.")
    restore.add_argument("job", metavar="JOB", help="JOB, or JOB--REPOSITORY if it has several repositories")
    restore.add_argument("--target", required=True, metavar="DIR", help="directory that is missing or empty")
    restore.add_argument("--snapshot", default="latest", metavar="ID", help="as holdfast snapshots shows it (latest)")
    restore.add_argument("--path", action="append", default=[], metavar="P", help="only this path; may be repeated")
    restore.add_argument("--dump", metavar="NAME", help="with latest: this dump instead of the files")
    restore.add_argument("--dry-run", action="store_true", help="only say what would be restored")
    restore.add_argument("--force", action="store_true", help="write over what is there (in place: --target / --force)")
    trust = "with --force also where others than root may change directories: no account but root's may be in use"
    restore.add_argument("--trust-users", action="store_true", help=trust)
    mount = add("mount", "Show the snapshots of a job as directories, until Ctrl-C or umount.")
    mount.add_argument("job", metavar="JOB", help="JOB, or JOB--REPOSITORY if it has several repositories")
    mount.add_argument("mountpoint", metavar="MOUNTPOINT", help="directory that is empty, and only root may write to")
    unlock = add("unlock", "Remove the locks that a program which was killed left in the repository of a job.")
    unlock.add_argument("job", metavar="JOB", help="JOB, or JOB--REPOSITORY if it has several repositories")
    certificate = add("certificate", "The certificate of the rest-server on this host.")
    actions = certificate.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Issue a new certificate when the old one nears its end."
    renew = actions.add_parser("renew", help=text, description=text, allow_abbrev=False)
    renew.add_argument("--directory", default="/etc/holdfast/tls", metavar="DIR", help="(/etc/holdfast/tls)")
    renew.add_argument("--restart", metavar="SERVICE", help="what has to load a new certificate")
    text = "Restart a service where it does not serve the certificate that you put in its place."
    load = actions.add_parser("load", help=text, description=text, allow_abbrev=False)
    load.add_argument("--certificate", required=True, metavar="FILE", help="with its chain, in PEM")
    load.add_argument("--key", required=True, metavar="FILE", help="in PEM")
    load.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="what it has to be good for; may be repeated"
    )
    load.add_argument("--restart", required=True, metavar="SERVICE", help="what has to load a new certificate")
    capable = add("capable-copy", "For systemd: make the copy of restic that may read every file.")
    for name in ("source", "path", "group"):
        capable.add_argument(name, metavar=name.upper())
    add("interrupted", "For systemd: record the runs that ended with the host itself.")
    for name, description in (
        ("prepare", "For systemd: check and prepare a run."),
        ("verify", "For systemd: make an incomplete run fail."),
        ("finish", "For systemd: run the post hooks."),
        ("record", "For systemd: record the outcome of a run."),
    ):
        add(name, description).add_argument("unit", metavar="UNIT")
    return parser


def _for_systemd(host: Host, arguments: argparse.Namespace) -> int:
    from . import definition as definitions
    from . import finish, prepare, record, verify

    action: Callable[..., int] = {
        "prepare": prepare.prepare,
        "verify": verify.verify,
        "finish": finish.finish,
        "record": record.record,
    }[arguments.command]
    # The recorder of a bad run may be an instance of its own: systemd passes MONITOR_* only to a unit with one trigger.
    # A repository may be called failed, too.
    unit = "--".join(arguments.unit.split("--")[:2]) if arguments.unit.endswith(FAILED_SUFFIX) else arguments.unit
    return action(host, definitions.load(host, unit), os.environ)


def _for_people(host: Host, arguments: argparse.Namespace) -> int:
    if arguments.command == "certificate":
        return _certificate(host, arguments)
    if arguments.command == "capable-copy":
        return _capable_copy(arguments)
    if arguments.command == "interrupted":
        from . import interrupted

        return interrupted.settle_all(host)
    from . import status

    if arguments.command == "status":
        return status.status(host, arguments.job, as_json=arguments.json)
    from . import mount, restore, show, start

    if arguments.command == "run":
        return start.run(host, arguments.job, wait=arguments.wait, dry_run=arguments.dry_run)
    if arguments.command == "log":
        return show.log(host, arguments.job)
    if arguments.command == "snapshots":
        return show.snapshots(host, arguments.job, as_json=arguments.json)
    if arguments.command == "mount":
        return mount.mount(host, arguments.job, arguments.mountpoint)
    if arguments.command == "unlock":
        # What knows of other runs is imported when somebody asks.
        from . import unlock

        return unlock.unlock(host, arguments.job)
    return restore.restore(
        host,
        arguments.job,
        arguments.target,
        snapshot=arguments.snapshot,
        paths=arguments.path,
        dump=arguments.dump,
        dry_run=arguments.dry_run,
        force=arguments.force,
        trust_users=arguments.trust_users,
    )


def _certificate(host: Host, arguments: argparse.Namespace) -> int:
    from . import certificate

    if arguments.action == "renew":
        return certificate.renew(host, arguments.directory, arguments.restart)
    return certificate.load(host, arguments.certificate, arguments.key, arguments.name, arguments.restart)


def _capable_copy(arguments: argparse.Namespace) -> int:
    from .. import _capable
    from .._files import UnsafePathError

    try:
        differs = _capable.make(arguments.source, arguments.path, arguments.group).differs
    except (ValueError, UnsafePathError, OSError) as error:
        raise ProgramError(f"the copy {arguments.path} cannot be made: {error}") from error
    say(f"the copy was made anew ({', '.join(differs)})" if differs else "the copy is as it should be")
    return 0


def main(argv: Sequence[str] | None = None, host: Host | None = None) -> int:
    """Run one command. Returns its exit code; errors are one line on standard error, 2 stands for wrong use."""
    arguments = _parser().parse_args(argv)
    host = host or Host()
    if os.geteuid() != host.owner:
        complain("holdfast: only root can do this; try: sudo holdfast ...")
        return USAGE
    # A run unit has UMask=0077, which is for restic: its account has to find what is prepared for it.
    os.umask(0o022)
    action = _for_systemd if hasattr(arguments, "unit") else _for_people
    try:
        return action(host, arguments)
    except ProgramError as error:
        complain(f"holdfast: {error}")
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"holdfast: {error}")
        return 1
    except KeyboardInterrupt:
        complain("holdfast: interrupted; a run that was started goes on")
        return 130
