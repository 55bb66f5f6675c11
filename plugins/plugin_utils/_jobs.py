# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup job may say, and the restic command it becomes."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput, below

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

# Runs a command as the account $0 with its own groups, without the capability to become somebody, and without the
# credentials that restic has in its environment.
SWITCH = 'exec setpriv --reuid="$0" --regid="$(id -g -- "$0")" --init-groups --inh-caps=-all --ambient-caps=-all --reset-env -- "$@"'
# What a hook has, too.
DUMP_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

# The tag by which restic tells a job's files from its dumps.
FILES = "files"

KEEP_SPAN = re.compile(r"\A(?P<count>[1-9][0-9]{0,4})(?P<unit>[hdwmy])\Z")
KEEP_WITHIN = ("within", "within_hourly", "within_daily", "within_weekly", "within_monthly", "within_yearly")
# A component of a pattern as Go reads it: escapes, classes that are closed and not empty, anything else.
_GLOB_CHARACTER = r"(?:\\.|[^\\\]-])"
GLOB = re.compile(rf"\A(?:\\.|[^\\[]|\[(?:\^|(?!\^))(?:{_GLOB_CHARACTER}(?:-{_GLOB_CHARACTER})?)+\])*\Z", re.DOTALL)
KEEP_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")

# Options of restic backup that a job's own keys or the collection set; extra_args may not set them again. Short ones are
# refused altogether: they may be bundled, so -fr/elsewhere would be --force --repo=/elsewhere.
OWN_OPTIONS = frozenset(
    "--cacert --cache-dir --compression --dry-run --exclude --exclude-file --exclude-if-present --exclude-caches"
    " --exclude-larger-than --files-from --files-from-raw --files-from-verbatim --from-insecure-no-password --group-by"
    " --help --host --iexclude --iexclude-file --insecure-no-password --insecure-tls --json --key-hint --limit-download"
    " --limit-upload --no-cache --no-lock --one-file-system --option --pack-size --password-command --password-file --quiet"
    " --read-concurrency --repo --repository-file --retry-lock --stdin --stdin-filename --stdin-from-command --tag"
    " --time --tls-client-cert --verbose".split()
)
# Those that are left and take a value: as a word of its own it would be what follows, our own option perhaps.
VALUE_OPTIONS = frozenset({"--http-user-agent", "--parent", "--stuck-request-timeout"})
SECRET_VARIABLES = re.compile(
    r"PASS(?!FILE)|SECRET|TOKEN|KEY|CREDENTIAL|_SAS\Z|AUTH(?!OR|_SOCK)|(?<!\A)(?<!\AOLD)PWD\Z"
)
# What the units set, or what would change which code runs in them.
OWN_VARIABLES = re.compile(
    r"\A((RESTIC|BORG|HOLDFAST|MONITOR|LD|PYTHON|SYSTEMD)_.*|PYTHON.*|TMPDIR|GODEBUG|HTTPS?_PROXY|INVOCATION_ID)\Z"
)


def _keep_span(where: str, value: t.Any) -> str:
    if not isinstance(value, str) or not KEEP_SPAN.match(value):
        raise BadInput(where, value, "is not a span of time", "Use a number with h, d, w, m or y, like 14d, 8w or 12m")
    return value


def _environment(where: str, value: t.Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(where, value, "is not a dictionary", "Use NAME: value")
    result = {}
    for key, entry in value.items():
        at = below(where, key)
        if not isinstance(key, str) or len(key) > 128 or not f.VARIABLE.match(key):
            raise BadInput(at, "", "is not the name of a variable", "Use letters, digits and _")
        if OWN_VARIABLES.match(key.upper()):
            raise BadInput(at, "", "is a variable that holdfast sets itself", "Use the job's own keys, as proxy")
        if SECRET_VARIABLES.search(key.upper()) or (isinstance(entry, str) and re.search(r"://[^/\s]*@", entry)):
            raise BadInput(
                at,
                "",
                "looks like a secret, and the environment of a job is readable by everybody on the host",
                "Put credentials into the environment of a repository that is given by its url",
            )
        if isinstance(entry, bool):
            raise BadInput(at, entry, "is a boolean", "Write the text that is meant, in quotes")
        content = str(entry) if isinstance(entry, (int, float)) else entry
        result[str(key)] = "" if content == "" else f.line(at, content)
    return result


def _extra_args(where: str, value: t.Any) -> list[str]:
    arguments: list[str] = f.listing(f.line)(where, value)
    for number, argument in enumerate(arguments):
        option = argument.split("=", 1)[0]
        at = f"{where}[{number}]"
        if not re.match(r"\A--[a-z]", option):
            raise BadInput(
                at, argument, "is not an option in its long form", "Write --option or --option=value, one word"
            )
        if option in OWN_OPTIONS:
            raise BadInput(at, argument, "is an option that holdfast sets itself", "Use the job's own key for it")
        if option == "--skip-if-unchanged":
            raise BadInput(at, argument, "makes runs without a snapshot, which count as failed", "Remove it")
        if argument in VALUE_OPTIONS:
            raise BadInput(at, argument, "lacks its value", f"Write {option}=value, one word")
    return arguments


def _pattern(where: str, value: t.Any) -> str:
    """A pattern of --exclude; restic refuses the whole backup for one that it cannot read (Go's filepath.Match)."""
    pattern = str(f.line(where, value))
    if not all(GLOB.match(part) for part in pattern.removeprefix("!").split("/")):
        raise BadInput(where, value, "is not a pattern", "Close every [, and write a literal [ or \\ as \\[ or \\\\")
    return pattern


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
            "timeout": f.seconds(1),
        },
        where,
        value,
        required=("command",),
    )
    return {"user": "root", "timeout": 3600, **hook}


def _dump_argument(where: str, value: t.Any) -> str:
    if isinstance(value, str) and re.match(r"--([a-z-]+-)?(pass[a-z]*|secret|token)=.", value):
        raise BadInput(
            where,
            "<hidden>",
            "looks like a secret, and the command of a dump is readable by everybody on the host",
            "Put it into a file in the home of the dump's account, like .my.cnf or .pgpass",
        )
    return str(f.line(where, value))


def _dump(where: str, value: t.Any) -> dict[str, t.Any]:
    dump = f.mapping(
        {
            "kind": f.choice("postgresql", "mariadb", "command"),
            "name": f.name,
            "database": f.text(
                r"[^\0-\x1f\x7f/=-][^\0-\x1f\x7f/=]{0,62}",
                "the name of a database",
                "Give one database, or leave it out for all",
            ),
            "user": f.text(f.ACCOUNT.pattern[2:-2], "the name of an account", "Use the login name of the account"),
            "command": f.listing(f.text(r"[^\0]+", "an argument", "Give a text without NUL"), empty=False),
            "extra_args": f.listing(_dump_argument),
            "filename": f.text(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,79}", "a file name", "Use letters, digits and . _ + -"),
        },
        where,
        value,
        required=("kind",),
    )
    kind = dump["kind"]
    if kind == "command":
        if "command" not in dump or "user" not in dump or "name" not in dump:
            raise BadInput(where, "", "lacks name, user or command", "A dump of kind command needs all three")
        argv = dump["command"] + dump.get("extra_args", [])
        name, suffix = dump["name"], ""
    else:
        if "command" in dump:
            raise BadInput(f"{where}.command", "", "goes with kind: command only", "Use extra_args, or kind: command")
        known = DUMP_COMMANDS[kind]
        which = "one" if "database" in dump else "all"
        argv = list(known[which])
        end = argv.pop() if argv[-1] == "--" else None
        argv += dump.get("extra_args", []) + ([end, dump["database"]] if end else [])
        name, suffix = dump.get("name", kind), f".{known['suffix'][which]}"
    return {
        "kind": kind,
        "name": name,
        "user": dump.get("user") or DUMP_COMMANDS[kind]["user"],
        "command": argv,
        # No directory in it: restic 0.18.0 refuses one.
        "path": f"/{dump.get('filename', name + suffix)}",
    }


def _schedule(where: str, value: t.Any) -> dict[str, t.Any]:
    schedule = f.mapping(
        {
            "calendar": f.text(
                r"[A-Za-z0-9*][A-Za-z0-9*/.,:~+_ -]{0,199}",
                "a calendar expression",
                "See systemd.time(7), for instance daily or Mon..Fri 02:30 Europe/Berlin",
            ),
            "spread": f.seconds(0),
            "persistent": f.boolean,
        },
        where,
        value,
        required=("calendar",),
    )
    # A longer delay than lies between two times would leave some out: systemd looks for the next one after the delayed one.
    defaults = {**DEFAULTS["schedule"], **({"spread": 0} if _within_spread(schedule["calendar"]) else {})}
    return {**defaults, **schedule}


def _within_spread(calendar: str) -> bool:
    """Whether this may come round within two hours."""
    if re.match(r"(?i)(hour|minute)ly\b", calendar):
        return True
    time = re.search(r"(?:\A|[ T])([0-9*/.,]+):([0-9*/.,:]+)", calendar)
    if not time:
        return False
    hours, minutes = time.groups()
    if not re.match(r"\A[0-9]+(:[0-9]+)?\Z", minutes):
        return True
    repeated = re.match(r"\A([0-9]+)/([1-9][0-9]*)\Z", hours)
    if repeated:
        at = list(range(int(repeated[1]), 24, int(repeated[2])))
    elif re.match(r"\A[0-9]+(,[0-9]+)*\Z", hours):
        at = sorted(map(int, hours.split(",")))
    else:
        return True
    return len(at) > 1 and any((later - hour) % 24 < 2 for hour, later in zip(at, at[1:] + at[:1]))


def _tag(where: str, value: t.Any) -> str:
    tag = _tag_text(where, value)
    if tag.startswith(("job:", "dump:")):
        raise BadInput(where, value, "begins like a tag of holdfast's own", "Use another tag")
    if tag == FILES:
        raise BadInput(where, value, "is holdfast's own tag of snapshots of files", "Use another tag")
    return str(tag)


def _marker(where: str, value: t.Any) -> str:
    marker = str(f.line(where, value))
    if marker.startswith(":") or "/" in marker.split(":", 1)[0]:
        raise BadInput(where, value, "is not the name of a file", "Use name, or name:what the file begins with")
    return marker


_host = f.text(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,127}", "a host name", "Use letters, digits and . _ : -")
_tag_text = f.text(
    r"[A-Za-z0-9_.:=@/+-]{1,100}", "a tag", "Use letters, digits and _ . : = @ / + -, no comma, 100 characters at most"
)

FIELDS: dict[str, f.Checker] = {
    "paths": f.listing(f.absolute_path, empty=False),
    "optional_paths": f.listing(f.absolute_path),
    "exclude": f.listing(_pattern),
    "exclude_if_present": f.listing(_marker),
    "exclude_caches": f.boolean,
    "exclude_larger_than": f.size("a size", "kKmMgGtT"),
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
    "memory_max": f.size("an amount of memory", "KMGT"),
    "timeout": f.seconds(1),
    "retry_lock": f.seconds(0),
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
    "repositories": f.listing(f.name, empty=False),
    "incomplete": f.choice("failed", "ok"),
}

DEFAULTS: dict[str, t.Any] = {
    "paths": [],
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
    result = {**DEFAULTS, **f.mapping(FIELDS, where, value)}
    if not any(result[key] for key in ("paths", "optional_paths", "dumps")):
        raise BadInput(where, "", "has nothing to save", "Give it paths, optional_paths or dumps")
    if "host" not in result:
        result["host"] = _host(f"{where}.host (from the inventory name)", inventory_name)
    _distinct(f"{where}.dumps", [dump["name"] for dump in result["dumps"]], "the name of two dumps of this job")
    _distinct(f"{where}.repositories", result.get("repositories", []), "named twice")
    return result


def _distinct(where: str, names: list[str], wrong: str) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise BadInput(f"{where}[{number}]", name, f"is {wrong}", "Give each a name of its own")


def keep_options(where: str, keep: dict[str, t.Any], append_only: bool) -> list[str]:
    """Retention as options of restic forget; weeks become days, which restic has instead.

    Counts are refused where the repository is append-only: whoever forges snapshots would push out the true ones.
    """
    options = []
    for key, value in sorted(keep.items()):
        if key in KEEP_COUNTS and append_only:
            raise BadInput(
                f"{where}.{key}",
                value,
                "counts snapshots, and on an append-only repository a forged snapshot would push out a true one",
                f"Use a span of time: {', '.join(KEEP_WITHIN)}",
            )
        span = KEEP_SPAN.match(value) if key in KEEP_WITHIN else None
        days = f"{int(span['count']) * 7}d" if span and span["unit"] == "w" else value
        options.append(f"--keep-{key.replace('_', '-')}={days}")
    return options


def backup_arguments(
    unit: str, name: str, definition: dict[str, t.Any], repository: dict[str, t.Any], own: t.Sequence[str]
) -> list[str]:
    """The arguments of ``restic backup`` for the files of one run unit, without the binary; paths last, behind ``--``.

    Empty where the job has only dumps: restic has a unit for each of them. ``own`` are our own directories that are left out: caches and local repositories.
    """
    if not definition["paths"] and not definition["optional_paths"]:
        return []
    return [
        *_common_arguments(name, definition, repository),
        # Restic compares with the newest snapshot that has all of these tags: without this one that is the dump's, made just before.
        f"--tag={FILES}",
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
    """The arguments of ``restic backup`` for one dump: a snapshot of its own with a stable path and tag.

    Only the command runs as the database's account. Restic runs as the backup's: whoever is the account restic runs as can
    read its password, and with that all of the host's files in the repository.
    """
    variables = {**DUMP_ENVIRONMENT, **definition["environment"]}
    return [
        *_common_arguments(name, definition, repository),
        f"--tag=dump:{dump['name']}",
        *(f"--tag={tag}" for tag in definition["tags"]),
        "--group-by=host,tags",
        f"--stdin-filename={dump['path']}",
        "--stdin-from-command",
        "--",
        *("/bin/sh", "-c", SWITCH, dump["user"]),
        *("env", *(f"{key}={value}" for key, value in sorted(variables.items()))),
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
