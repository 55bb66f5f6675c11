# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job of borg: borgmatic's configuration for its files, and borg's command for each dump."""

from __future__ import annotations

import posixpath
import re
import typing as t

from ansible_collections.holdfast.backup.plugins.module_utils._program.sources import plain
from ansible_collections.holdfast.backup.plugins.plugin_utils import _jobs
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

COMPRESSION = {"auto": "auto,zstd", "off": "none", "max": "auto,zstd,19"}
# UTC, and fine enough that two runs never meet. The name is unique in a repository, and borg cannot set a host name.
TIME = "{utcnow:%Y-%m-%dT%H:%M:%S.%f}"
# By this borg knows what it left of an archive that was cut off.
HIDDEN = ".checkpoint"
# What a job may say to restic alone, with the value that stands for nothing said.
_RESTIC_ONLY: dict[str, t.Any] = {
    "exclude_larger_than": None,
    "pack_size": None,
    "read_concurrency": None,
    "limit_download": None,
    "proxy": None,
    "extra_args": [],
}
# Lines of a pattern file are trimmed, and cannot hold a line break.
_UNFIT_PATH = re.compile(r"\A\s|\s\Z|[\r\n\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_KEEP_UNITS = {"h": "H"}


def check(where: str, job: dict[str, t.Any], repository: dict[str, t.Any]) -> None:
    """Raise BadInput for what borg cannot do."""
    to = f"does not go with {repository['name']}, which is a repository of borg"
    for key, nothing in _RESTIC_ONLY.items():
        if job[key] != nothing:
            raise BadInput(
                f"{where}.{key}", job[key], to, f"Leave {key} out, or give the job repositories of restic alone"
            )
    if job["limit_upload"] and repository["access"] == "local":
        raise BadInput(f"{where}.limit_upload", job["limit_upload"], f"{to} on the host itself", "Leave it out")
    for key in ("paths", "optional_paths"):
        for path in job[key]:
            if _UNFIT_PATH.search(path):
                raise BadInput(
                    f"{where}.{key}",
                    path,
                    f"has a line break, or spaces around it, and {to}: borg's lists of paths cannot hold it",
                    "Name the directory above it",
                )
    for pattern in job["exclude"]:
        if pattern.startswith("!"):
            raise BadInput(
                f"{where}.exclude", pattern, f"takes something back, and {to}", "Write patterns that only leave out"
            )
    for marker in job["exclude_if_present"]:
        if ":" in marker or " " in marker:
            raise BadInput(
                f"{where}.exclude_if_present", marker, f"{to}: borg looks at names alone", "Give the name of a file"
            )
    if ":" in job["host"]:
        raise BadInput(f"{where}.host", job["host"], to, "Use letters, digits and . _ -")
    # All of an archive's name: job and time have no dot before a word.
    named = {f"{where}.host": job["host"]}
    named |= {f"{where}.dumps[{number}].name": f".{dump['name']}" for number, dump in enumerate(job["dumps"])}
    for at, part in named.items():
        if HIDDEN in part:
            raise BadInput(
                at,
                part.lstrip("."),
                f"{to}: it lists no archive that has {HIDDEN} in its name, and nothing could be restored",
                "Choose another name; of a job without a host it is the inventory name",
            )


def configuration(
    unit: str, name: str, job: dict[str, t.Any], repository: dict[str, t.Any], own: t.Sequence[str]
) -> dict[str, t.Any]:
    """borgmatic's configuration of one run unit, without secrets. ``own`` are our own directories that are left out.

    Paths that hold a wildcard are not in it: they are in the list that the run's preparation writes, with what was
    dropped in and the optional paths that are there.
    """
    found: dict[str, t.Any] = {
        "source_directories": [_literal(path) for path in job["paths"] if plain(path)],
        "repositories": [{"path": repository["location"], "label": repository["name"]}],
        "exclude_patterns": [f"re:{expression(pattern)}" for pattern in [*own, *job["exclude"]]],
        "encryption_passphrase": "{credential systemd password}",
        "borg_base_directory": "/var/lib/holdfast/borg",
        "archive_name_format": archive_name(name, job),
        # The files alone: a dump's name goes on after the time.
        "match_archives": f"sh:{job['host']}--{name}--*T??:??:??.??????",
        "compression": COMPRESSION[job["compression"]],
        "lock_wait": max(1, job["retry_lock"]),
        "relocated_repo_access_is_ok": False,
        "unknown_unencrypted_repo_access_is_ok": False,
        "bootstrap": {"store_config_files": False},
        "extra_borg_options": {
            "create": f"--comment {comment(name, job)} --patterns-from /run/holdfast/{unit}.sources"
        },
    }
    if not found["source_directories"]:
        del found["source_directories"]
    if job["exclude_if_present"]:
        found["exclude_if_present"] = list(job["exclude_if_present"])
    for key in ("exclude_caches", "one_file_system"):
        if job[key]:
            found[key] = True
    if job["limit_upload"]:
        found["upload_rate_limit"] = job["limit_upload"]
    return found


def archive_name(name: str, job: dict[str, t.Any], dump: str | None = None) -> str:
    """``<host>--<job>--<time>``, for a dump ``<host>--<job>--<time>.<dump>``.

    One pattern of borg's, which has no alternatives, so finds all archives of a job and none of another.
    """
    return f"{job['host']}--{name}--{TIME}{f'.{dump}' if dump else ''}"


def comment(name: str, job: dict[str, t.Any], *more: str) -> str:
    """The tags of an archive, which borg itself has not; one word, since borgmatic splits at spaces."""
    return ",".join(["holdfast", f"job:{name}", *more, *job["tags"]])


def _literal(path: str) -> str:
    """A path as borgmatic reads it: it puts variables of its environment in."""
    return path.replace("${", "\\${")


def expression(pattern: str) -> str:
    """A pattern of restic's as a regular expression for borg's paths, which have no leading slash.

    Without a slash at its beginning it matches at any depth. ``*`` and ``?`` match no slash, ``**`` matches directories, or none:
    ``/home/**`` leaves out ``/home`` itself, too. As restic does, detours in it are taken out first.
    """
    anchored = pattern.startswith("/")
    parts = [_component(part) for part in posixpath.normpath(pattern).strip("/").split("/")]
    joined = "/".join(parts).replace("(?:.*)/", "(?:.*/)?")
    joined = re.sub(r"/\(\?:\.\*\)\Z", "(?:/.*)?", joined)
    return f"{'^/?' if anchored else '(^|/)'}{joined}(/|$)"


def expressions(patterns: t.Sequence[str]) -> list[str]:
    """Patterns of restic's as regular expressions; what one with a ``!`` before it takes in again stays marked by that."""
    return [f"!{expression(each[1:])}" if each.startswith("!") else expression(each) for each in patterns]


def _component(part: str) -> str:
    if part == "**":
        return "(?:.*)"
    result, rest = "", part
    while rest:
        found = re.match(r"\\(.)|\[(\^?)((?:\\.|[^\\\]])+)\]|([*?])|(.)", rest, re.DOTALL)
        if found is None:
            raise ValueError(f"{part!r} is not a pattern")
        escaped, negated, inside, wildcard, plain_character = found.groups()
        if inside is not None:
            result += f"[{'^/' if negated else ''}{inside.replace('[', chr(92) + '[')}]"
        elif wildcard is not None:
            result += "[^/]*" if wildcard == "*" else "[^/]"
        else:
            result += re.escape(escaped if escaped is not None else plain_character)
        rest = rest[found.end() :]
    return result


def run_arguments(unit: str) -> list[str]:
    """The arguments of borgmatic in a run unit."""
    return [
        "--config",
        f"/etc/holdfast/borgmatic/{unit}.yaml",
        "--log-json",
        "--no-color",
        "--verbosity",
        "0",
        "--syslog-verbosity",
        "-2",
        "create",
        "--json",
    ]


def dump_arguments(name: str, job: dict[str, t.Any], repository: dict[str, t.Any], dump: dict[str, t.Any]) -> list[str]:
    """The arguments of ``borg create`` for one dump: an archive of its own with a stable name in it.

    Only the command runs as the database's account, as for restic.
    """
    variables = {**_jobs.DUMP_ENVIRONMENT, **job["environment"]}
    return [
        "--log-json",
        "create",
        "--json",
        f"--lock-wait={max(1, job['retry_lock'])}",
        f"--compression={COMPRESSION[job['compression']]}",
        *([f"--upload-ratelimit={job['limit_upload']}"] if job["limit_upload"] else []),
        f"--comment={comment(name, job, 'dump:' + dump['name'])}",
        f"--stdin-name={dump['path'].lstrip('/')}",
        "--content-from-command",
        "--",
        f"{repository['location']}::{archive_name(name, job, dump['name'])}",
        *("/bin/sh", "-c", _jobs.SWITCH, dump["user"]),
        *("env", *(f"{key}={value}" for key, value in sorted(variables.items()))),
        *dump["command"],
    ]


def keep_options(where: str, keep: dict[str, t.Any], append_only: bool) -> list[str]:
    """Retention as options of ``borg prune``; it keeps everything within a span, or counts archives.

    Counts are refused where the repository is append-only, as for restic.
    """
    options = []
    for key, value in sorted(keep.items()):
        if key.startswith("within_"):
            raise BadInput(
                f"{where}.{key}", value, "cannot be expressed by borg, which knows only one span", "Use within"
            )
        if key in _jobs.KEEP_COUNTS and append_only:
            raise BadInput(
                f"{where}.{key}",
                value,
                "counts snapshots, and on an append-only repository a forged snapshot would push out a true one",
                "Use a span of time: within",
            )
        text = str(value)
        if key == "within":
            text = text[:-1] + _KEEP_UNITS.get(text[-1], text[-1])
        options.append(f"--keep-{key}={text}")
    return options
