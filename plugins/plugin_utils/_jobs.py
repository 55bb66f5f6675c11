# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup job may say, and the restic command it becomes."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

# The databases' own commands and accounts; ``{database}`` is one more argument where a database is named.
DUMP_COMMANDS: dict[str, dict[str, t.Any]] = {
    "postgresql": {
        "user": "postgres",
        "all": ["pg_dumpall", "--clean", "--if-exists"],
        "one": ["pg_dump", "--format=custom", "--"],
        "suffix": {"all": "sql", "one": "dump"},
    },
    "mariadb": {
        "user": "mysql",
        "all": ["mariadb-dump", "--single-transaction", "--routines", "--events", "--all-databases"],
        "one": ["mariadb-dump", "--single-transaction", "--routines", "--events", "--databases", "--"],
        "suffix": {"all": "sql", "one": "sql"},
    },
}

KEEP_SPAN = re.compile(r"\A(?P<count>[1-9][0-9]{0,4})(?P<unit>[hdwmy])\Z")
KEEP_WITHIN = ("within", "within_hourly", "within_daily", "within_weekly", "within_monthly", "within_yearly")
KEEP_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")

# Options of restic backup that a job's own keys or the collection set; extra_args may not set them again.
OWN_OPTIONS = frozenset(
    "--cacert --cache-dir --compression --dry-run -n --exclude -e --exclude-file --exclude-if-present --exclude-caches"
    " --exclude-larger-than --files-from --files-from-raw --files-from-verbatim --from-insecure-no-password --group-by -g"
    " --host -H --iexclude --iexclude-file --insecure-no-password --insecure-tls --json --key-hint --limit-download"
    " --limit-upload --no-lock --one-file-system -x --option -o --pack-size --password-command --password-file -p --quiet -q"
    " --read-concurrency --repo -r --repository-file --retry-lock --stdin --stdin-filename --stdin-from-command --tag"
    " --time --tls-client-cert --verbose -v".split()
)
SECRET_VARIABLES = re.compile(r"(PASSWORD|SECRET|TOKEN|_KEY|KEY_|CREDENTIAL)")


def _keep_span(where: str, value: t.Any) -> str:
    if not isinstance(value, str) or not KEEP_SPAN.match(value):
        raise BadInput(where, value, "is not a span of time", "Use a number with h, d, w, m or y, like 14d, 8w or 12m")
    return value


def _environment(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(where, value, "is not a dictionary", "Use NAME: value")
    result = {}
    for key, entry in value.items():
        if not isinstance(key, str) or not f.VARIABLE.match(key):
            raise BadInput(f"{where}.{key}", "", "is not the name of a variable", "Use letters, digits and _")
        if key.startswith(("RESTIC_", "HOLDFAST_")) or SECRET_VARIABLES.search(key.upper()):
            raise BadInput(
                f"{where}.{key}",
                "",
                "cannot be set here: the environment of a job is readable by everybody on the host",
                "Put credentials into the repository's environment, and use the job's own keys for what restic is told",
            )
        result[key] = f.line(f"{where}.{key}", str(entry) if isinstance(entry, (int, float)) else entry)
    return result


def _extra_args(where: str, value: t.Any) -> list[str]:
    arguments: list[str] = f.listing(f.line)(where, value)
    for number, argument in enumerate(arguments):
        option = argument.split("=", 1)[0]
        bundled = bool(re.match(r"\A-[A-Za-z]{2,}", argument)) or bool(re.match(r"\A-[A-Za-z].", argument))
        if option in OWN_OPTIONS or argument == "--" or (bundled and argument[:2] in OWN_OPTIONS):
            raise BadInput(
                f"{where}[{number}]", argument, "is an option that holdfast sets itself", "Use the job's own key for it"
            )
    return arguments


def _hook(where: str, value: t.Any) -> dict[str, t.Any]:
    if isinstance(value, str):
        value = {"command": value}
    if isinstance(value, dict) and isinstance(value.get("command"), str):
        value = {
            **value,
            "command": ["/bin/sh", "-c", f.text(r"[^\0]+", "a command", "Give a command")(where, value["command"])],
        }
    hook = f.mapping(
        {
            "command": f.listing(f.text(r"[^\0]+", "an argument", "Give a text without NUL"), empty=False),
            "user": f.text(f.ACCOUNT.pattern[2:-2], "the name of an account", "Use the login name of the account"),
            "timeout": f.seconds,
        },
        where,
        value,
        required=("command",),
    )
    return {"user": "root", "timeout": 3600, **hook}


def _dump(where: str, value: t.Any) -> dict[str, t.Any]:
    dump = f.mapping(
        {
            "kind": f.choice("postgresql", "mariadb", "command"),
            "name": f.name,
            "database": f.text(
                r"[^\0-\x1f/-][^\0-\x1f/]*", "the name of a database", "Give one database, or leave it out for all"
            ),
            "user": f.text(f.ACCOUNT.pattern[2:-2], "the name of an account", "Use the login name of the account"),
            "command": f.listing(f.text(r"[^\0]+", "an argument", "Give a text without NUL"), empty=False),
            "extra_args": f.listing(f.line),
            "filename": f.text(r"[A-Za-z0-9._+-]{1,80}", "a file name", "Use letters, digits and . _ + -"),
        },
        where,
        value,
        required=("kind",),
    )
    kind = dump["kind"]
    if kind == "command":
        if "command" not in dump or "user" not in dump or "name" not in dump:
            raise BadInput(where, dump, "lacks name, user or command", "A dump of kind command needs all three")
        argv = dump["command"] + dump.get("extra_args", [])
        filename = dump.get("filename", dump["name"])
    else:
        if "command" in dump:
            raise BadInput(f"{where}.command", "", "goes with kind: command only", "Use extra_args, or kind: command")
        known = DUMP_COMMANDS[kind]
        which = "one" if "database" in dump else "all"
        argv = list(known[which])
        end = argv.pop() if argv[-1] == "--" else None
        argv += dump.get("extra_args", []) + ([end, dump["database"]] if end else [])
        filename = dump.get("filename", f"{dump.get('database', 'all')}.{known['suffix'][which]}")
    name = dump.get("name", kind)
    return {
        "kind": kind,
        "name": name,
        "user": dump.get("user") or DUMP_COMMANDS[kind]["user"],
        "command": argv,
        "path": f"/{name}/{filename}",
    }


def _schedule(where: str, value: t.Any) -> dict[str, t.Any]:
    schedule = f.mapping(
        {
            "calendar": f.text(
                r"[A-Za-z0-9*/.,:~+_ -]{1,200}",
                "a calendar expression",
                "See systemd.time(7), for instance daily or Mon..Fri 02:30 Europe/Berlin",
            ),
            "spread": f.seconds,
            "persistent": f.boolean,
        },
        where,
        value,
        required=("calendar",),
    )
    return {"spread": 0, "persistent": True, **schedule}


_size = f.text(r"[1-9][0-9]{0,14}[kKmMgGtT]?", "a size", "Use a number with K, M, G or T, like 500M")
_host = f.text(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", "a host name", "Use letters, digits and . _ : -")
_tag = f.text(r"[A-Za-z0-9_.:=@/+-]{1,100}", "a tag", "Use letters, digits and _ . : = @ / + -, no comma")
_memory = f.text(r"[1-9][0-9]{0,14}[KMGT]?", "an amount of memory", "Use a number with K, M, G or T, like 2G")

FIELDS: dict[str, f.Checker] = {
    "paths": f.listing(f.absolute_path, empty=False),
    "optional_paths": f.listing(f.absolute_path),
    "exclude": f.listing(f.line),
    "exclude_if_present": f.listing(f.line),
    "exclude_caches": f.boolean,
    "exclude_larger_than": _size,
    "one_file_system": f.boolean,
    "tags": f.listing(_tag),
    "host": _host,
    "compression": f.choice("auto", "off", "max"),
    "pack_size": f.integer(4, 128, " (MiB)"),
    "read_concurrency": f.integer(1, 64),
    "limit_upload": f.integer(1, 10**8, " (KiB/s)"),
    "limit_download": f.integer(1, 10**8, " (KiB/s)"),
    "nice": f.integer(-20, 19),
    "io_class": f.choice("idle", "best-effort"),
    "cpu_quota": f.text(r"[1-9][0-9]{0,4}%", "a share of CPU time", "Use a percentage, like 50%"),
    "memory_max": _memory,
    "timeout": f.seconds,
    "retry_lock": f.seconds,
    "proxy": f.proxy,
    "environment": _environment,
    "extra_args": _extra_args,
    "pre": f.listing(_hook),
    "post": f.listing(_hook),
    "dumps": f.listing(_dump),
    "schedule": _schedule,
    "keep": lambda where, value: f.mapping(
        {**{key: _keep_span for key in KEEP_WITHIN}, **{key: f.integer(1, 10000) for key in KEEP_COUNTS}}, where, value
    ),
    "repositories": f.listing(f.name),
    "incomplete": f.choice("failed", "ok"),
}

DEFAULTS: dict[str, t.Any] = {
    "optional_paths": [],
    "exclude": [],
    "exclude_if_present": [],
    "exclude_caches": False,
    "exclude_larger_than": None,
    "one_file_system": False,
    "tags": [],
    "compression": "auto",
    "pack_size": None,
    "read_concurrency": None,
    "limit_upload": None,
    "limit_download": None,
    "nice": 10,
    "io_class": "idle",
    "cpu_quota": None,
    "memory_max": None,
    "timeout": 86400,
    "retry_lock": 300,
    "proxy": None,
    "environment": {},
    "extra_args": [],
    "pre": [],
    "post": [],
    "dumps": [],
    "schedule": {"calendar": "daily", "spread": 7200, "persistent": True},
    "keep": {},
    "incomplete": "failed",
}


def job(where: str, value: t.Any, inventory_name: str) -> dict[str, t.Any]:
    """A normalised job; ``repositories`` is absent where the user named none."""
    result = {**DEFAULTS, "host": inventory_name, **f.mapping(FIELDS, where, value, required=("paths",))}
    names = [dump["name"] for dump in result["dumps"]]
    for number, dump in enumerate(names):
        if dump in names[:number]:
            raise BadInput(
                f"{where}.dumps[{number}].name",
                dump,
                "is used by two dumps of this job",
                "Give each dump a name of its own",
            )
    return result


def keep_options(where: str, keep: dict[str, t.Any], append_only: bool) -> list[str]:
    """Retention as options of restic forget; weeks become days, which restic has instead.

    Counts are refused where the repository is append-only: whoever forges snapshots would push out the true ones.
    """
    options = []
    for key, value in keep.items():
        if key in KEEP_COUNTS and append_only:
            raise BadInput(
                f"{where}.{key}",
                value,
                "counts snapshots, and on an append-only repository a forged snapshot would push out a true one",
                f"Use a span of time: {', '.join(KEEP_WITHIN)}",
            )
        if key in KEEP_WITHIN:
            match = t.cast("re.Match[str]", KEEP_SPAN.match(value))
            value = f"{int(match['count']) * 7}d" if match["unit"] == "w" else value
        options.append(f"--keep-{key.replace('_', '-')}={value}")
    return options


def backup_arguments(
    unit: str, name: str, definition: dict[str, t.Any], repository: dict[str, t.Any], own: t.Sequence[str]
) -> list[str]:
    """The arguments of ``restic backup`` for the files of one run unit, without the binary; paths last, behind ``--``.

    ``own`` are our own directories that are left out: caches and local repositories.
    """
    return [
        *_common_arguments(name, definition, repository),
        *(f"--tag={tag}" for tag in definition["tags"]),
        "--group-by=host,tags",
        *(f"--exclude={path}" for path in own),
        *(f"--exclude={pattern}" for pattern in definition["exclude"]),
        *(f"--exclude-if-present={marker}" for marker in definition["exclude_if_present"]),
        *(["--exclude-caches"] if definition["exclude_caches"] else []),
        *([f"--exclude-larger-than={definition['exclude_larger_than']}"] if definition["exclude_larger_than"] else []),
        *(["--one-file-system"] if definition["one_file_system"] else []),
        *([f"--read-concurrency={definition['read_concurrency']}"] if definition["read_concurrency"] else []),
        f"--files-from-raw=/run/holdfast/{unit}.sources",
        *definition["extra_args"],
        "--",
        *definition["paths"],
    ]


def dump_arguments(
    name: str, definition: dict[str, t.Any], repository: dict[str, t.Any], dump: dict[str, t.Any]
) -> list[str]:
    """The arguments of ``restic backup`` for one dump: a snapshot of its own with a stable path and tag."""
    return [
        *_common_arguments(name, definition, repository),
        f"--tag=dump:{dump['name']}",
        *(f"--tag={tag}" for tag in definition["tags"]),
        "--group-by=host,tags",
        f"--stdin-filename={dump['path']}",
        "--stdin-from-command",
        "--",
        *dump["command"],
    ]


def _common_arguments(name: str, definition: dict[str, t.Any], repository: dict[str, t.Any]) -> list[str]:
    limits = [
        f"--{key.replace('_', '-')}={definition[key]}" for key in ("limit_upload", "limit_download") if definition[key]
    ]
    return [
        "backup",
        "--json",
        *(f"--option={key}={value}" for key, value in sorted(repository["options"].items())),
        f"--retry-lock={definition['retry_lock']}s",
        f"--compression={definition['compression']}",
        *([f"--pack-size={definition['pack_size']}"] if definition["pack_size"] else []),
        *limits,
        f"--host={definition['host']}",
        f"--tag=job:{name}",
    ]
