"""The Debian mirror that this machine itself uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .shell import LabError, run

APT = Path("/etc/apt")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Settings of the machine without which its mirror cannot be used.
KEPT_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class Archive:
    """Where packages come from."""

    main: str
    security: str

    def sources(self, suite: str) -> list[str]:
        """One-line sources of a suite; of backports those alone, and only when they are asked for."""
        if suite == "sid" or suite.endswith("-backports"):
            return [f"deb {self.main} {suite} main"]
        return [
            f"deb {self.main} {suite} main",
            f"deb {self.main} {suite}-updates main",
            f"deb {self.security} {suite}-security main",
        ]


def find_archive() -> Archive:
    """Read the machine's sources. Raises LabError when they name no mirror of Debian."""
    texts = []
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if path.suffix in {".list", ".sources"} and path.is_file():
            texts.append((path.suffix == ".sources", path.read_text(errors="replace")))
    named = [pair for deb822, text in texts for pair in read_sources(text, deb822)]
    return choose_mirrors((mirror, suite) for uri, suite in named for mirror in mirrors_of(uri))


def read_sources(text: str, deb822: bool) -> list[tuple[str, str]]:
    """(URI, suite) of each enabled binary source in a file."""
    if not deb822:
        line = re.compile(r"^\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", re.MULTILINE)
        return [(match[1], match[2]) for match in line.finditer(text)]
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for row in stanza.splitlines():
            if row.startswith("#"):
                continue
            if row[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {row.strip()}"
            else:
                key, _colon, value = row.partition(":")
                key = key.lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() != "no" and "deb" in fields.get("types", "").split():
            found += [
                (uri, suite) for uri in fields.get("uris", "").split() for suite in fields.get("suites", "").split()
            ]
    return found


def mirrors_of(uri: str) -> list[str]:
    """The mirrors behind a URI: those of the list that it names, as in Debian's cloud images, else itself."""
    scheme, _colon, place = uri.partition(":")
    if scheme != "mirror+file":
        return [uri]
    try:
        lines = Path(place).read_text(errors="replace").splitlines()
    except OSError:
        return []
    # Words after the first are tags, a priority for instance.
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def choose_mirrors(sources: Iterable[tuple[str, str]]) -> Archive:
    """The first mirror that carries Debian, and the first with its security updates, else those beside the former.

    Raises LabError when none carries Debian.
    """
    main = security = None
    for uri, suite in sources:
        if not uri.startswith(("http://", "https://")):
            continue
        if suite.endswith("-security") or suite.endswith("/updates"):
            security = security or uri.rstrip("/")
        elif re.search(r"/debian/?\Z", uri):
            main = main or uri.rstrip("/")
    if main is None:
        raise LabError("The apt sources of this machine name no mirror of Debian: add one whose URI ends in /debian.")
    return Archive(main, security or f"{main}-security")


def kept_settings() -> list[str]:
    """The machine's apt settings that guests need as well, as lines of an apt.conf."""
    dump = run(["apt-config", "dump", *KEPT_SETTINGS]).stdout.splitlines()
    return [line for line in dump if not line.endswith('"";')]


def upstream_proxy() -> str | None:
    """The proxy that the machine's own apt goes through, if any."""
    match = re.search(r'"(.+)"', run(["apt-config", "dump", "Acquire::http::Proxy"]).stdout)
    return match[1] if match and match[1] != "DIRECT" else None


def download(directory: Path, suite: str, packages: list[str]) -> dict[str, Path]:
    """Fetch packages of a suite that the machine itself does not use."""
    for name in ("state/lists/partial", "cache/archives/partial", "empty"):
        (directory / name).mkdir(parents=True)
    (directory / "state/status").touch()
    sources = [line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) for line in find_archive().sources(suite)]
    (directory / "sources.list").write_text("\n".join([*sources, ""]))
    settings = [
        f'Dir::State "{directory}/state";',
        f'Dir::State::status "{directory}/state/status";',
        f'Dir::Cache "{directory}/cache";',
        f'Dir::Etc::sourcelist "{directory}/sources.list";',
        f'Dir::Etc::sourceparts "{directory}/empty";',
        f'Dir::Etc::preferencesparts "{directory}/empty";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        *kept_settings(),
    ]
    config = directory / "apt.conf"
    config.write_text("\n".join([*settings, ""]))
    environment = {"APT_CONFIG": str(config)}
    run(["apt-get", "-q", "update"], timeout=300, env=environment)
    script = 'cd "$1" && shift && exec apt-get -q download "$@"'
    run(["sh", "-c", script, "download", str(directory), *packages], timeout=600, env=environment)
    found = {path.name.partition("_")[0]: path for path in directory.glob("*.deb")}
    for package in packages:
        if package not in found:
            raise LabError(f"{suite} did not give {package}; look at the machine's apt sources.")
    return found
