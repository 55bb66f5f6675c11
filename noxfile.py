"""The checks, one session each: `nox -l` lists them, `nox` runs those that need no test hosts, `make test` all.

The sessions use the pinned environments that `tests/tools/setup` makes (`make` calls it), not ones of their own:
nothing is downloaded while checks run, except by ansible-test, which pins and installs its own tools.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
MAIN = ROOT / ".venv"
OTHER = ROOT / ".venvs/2.21"
CACHE = ROOT / ".cache"
COVERAGE = CACHE / "coverage"
COVERAGE_FLOOR = 95
COLLECTION = "ansible_collections/holdfast/backup"
# What the tarball holds on its top level.
SHIPPED = {
    "CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "meta", "playbooks",
    "plugins", "roles",
}  # fmt: skip

nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = False


def run(session: nox.Session, *command: str, environment: Path = MAIN, **variables: str) -> None:
    """Run a program of an environment, with the collection where Ansible looks for it."""
    program = environment / "bin" / command[0]
    if not program.exists():
        session.error(f"{program.relative_to(ROOT)} is missing: run `make setup`")
    paths = {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
    }
    session.run(str(program), *command[1:], env={**paths, **variables}, external=True)


def other(session: nox.Session) -> Path:
    """The environment with ansible-core 2.21, or skip."""
    if not (OTHER / "bin/python").exists():
        session.skip("no Python >= 3.12 here: ansible-core 2.21 is not tested")
    return OTHER


@nox.session
def style(session: nox.Session) -> None:
    """Python: ruff's rules and format."""
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Python: mypy --strict of plugins, tests, scenarios and tools."""
    run(session, "mypy", "-p", "ansible_collections.holdfast.backup.plugins")
    run(session, "mypy", "-p", "tests")
    run(session, "mypy", "noxfile.py")
    # Each scenario by itself: its conftest is a module of that name.
    for tests in sorted(Path("molecule").glob("*/tests")):
        files = sorted(map(str, tests.parent.rglob("*.py")))
        run(session, "mypy", "--scripts-are-modules", "--no-warn-return-any", *files, MYPYPATH=str(tests))


@nox.session
def yaml(session: nox.Session) -> None:
    """YAML: yamllint."""
    run(session, "yamllint", "--strict", ".")


@nox.session
def ansible_lint(session: nox.Session) -> None:
    """Roles and playbooks: ansible-lint, profile production."""
    run(session, "ansible-lint", "--offline", "--nocolor")


@nox.session
def changelog(session: nox.Session) -> None:
    """Changelog fragments."""
    run(session, "antsibull-changelog", "lint")


@nox.session
def docs(session: nox.Session) -> None:
    """Documentation of plugins and roles: well formed, references resolve, docs/reference is up to date."""
    tree = CACHE / "docs"
    run(session, "python", "-m", "tests.tools.tree", str(tree))
    lint = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck"]
    run(session, *lint, str(tree / COLLECTION))
    run(session, "python", "-m", "tests.tools.reference", "--check")


@nox.session
def unit(session: nox.Session) -> None:
    """Unit tests with ansible-core 2.19, measured."""
    measured(session, "unit", "tests/unit")


@nox.session(name="unit-2.21")
def unit_other(session: nox.Session) -> None:
    """Unit tests with ansible-core 2.21, where a Python >= 3.12 is there."""
    run(session, "python", "-m", "pytest", "-q", "tests/unit", *session.posargs, environment=other(session))


@nox.session
def package(session: nox.Session) -> None:
    """Build the tarball, install it into an empty path, and read all documentation from there."""
    work = CACHE / "package"
    shutil.rmtree(work, ignore_errors=True)
    run(session, "ansible-galaxy", "collection", "build", "--output-path", str(work))
    (tarball,) = work.glob("*.tar.gz")
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    # The changelog comes with the first release.
    surprising = sorted(({name.split("/")[0] for name in names} | {"CHANGELOG.rst"}) ^ SHIPPED)
    if surprising or any("__pycache__" in name for name in names):
        session.error(f"not as expected in the tarball: {', '.join(surprising) or '__pycache__'}")
    for environment in [MAIN, *([OTHER] if OTHER.exists() else [])]:
        path = str(work / environment.name.lstrip("."))
        for command in (
            ["ansible-galaxy", "collection", "install", "--offline", str(tarball), "-p", path],
            ["python", "-m", "tests.tools.documented"],
        ):
            run(session, *command, environment=environment, ANSIBLE_COLLECTIONS_PATH=path)


@nox.session(default=False)
def sanity(session: nox.Session) -> None:
    """ansible-test sanity of ansible-core 2.19, no ignore files: of what is shipped (tests have mypy and ruff)."""
    shipped = ["--", "--exclude", "tests/", "--exclude", "molecule/"]
    if (OTHER / "bin/python").exists():
        # The most expensive one by far: the newer version of it, below, looks at the same files.
        shipped += ["--skip-test", "pylint"]
    run(session, "python", "-m", "tests.tools.sanity", *(session.posargs or shipped))


@nox.session(name="sanity-2.21", default=False)
def sanity_other(session: nox.Session) -> None:
    """ansible-test sanity of ansible-core 2.21, where a Python >= 3.12 is there: of what hosts and users get."""
    # The rest is the same for both.
    run(session, "python", "-m", "tests.tools.sanity", *(session.posargs or ["plugins/"]), environment=other(session))


@nox.session(default=False)
def integration(session: nox.Session) -> None:
    """Tests of modules and the host program on real hosts, measured (root)."""
    measured(session, "integration", "tests/integration")


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """The demo with ansible-core 2.19: with KEEP=1 to its end, and interrupted (root)."""
    run(session, "python", "-m", "pytest", "-q", "tests/demo", *session.posargs)


@nox.session(name="demo-2.21", default=False)
def demo_other(session: nox.Session) -> None:
    """The demo with ansible-core 2.21, where a Python >= 3.12 is there: to its end (root)."""
    # Not in the lab of a demo that somebody keeps.
    run(session, "python", "-m", "tests.demo.demo", "--lab", "demo-2-21", environment=other(session))


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Lines and branches that `unit` and `integration` reached: 95 % each."""
    parts = [str(path) for path in sorted(COVERAGE.glob("*/data.*"))]
    together = str(COVERAGE / "all")
    run(session, "coverage", "combine", "--keep", "--quiet", *parts, COVERAGE_FILE=together)
    run(session, "coverage", "report", "--skip-covered", COVERAGE_FILE=together)
    summary = COVERAGE / "summary.json"
    run(session, "coverage", "json", "--quiet", "-o", str(summary), COVERAGE_FILE=together)
    totals = json.loads(summary.read_text())["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    session.log(f"lines {lines:.2f} %, branches {branches:.2f} %, each has to be {COVERAGE_FLOOR} %")
    if min(lines, branches) < COVERAGE_FLOOR:
        session.error("too few are covered")


def measured(session: nox.Session, name: str, tests: str) -> None:
    """Run tests under coverage, processes that they start included."""
    shutil.rmtree(COVERAGE / name, ignore_errors=True)
    (COVERAGE / name).mkdir(parents=True)
    coverage_file = str(COVERAGE / name / "data")
    run(session, "coverage", "run", "-m", "pytest", "-q", tests, *session.posargs, COVERAGE_FILE=coverage_file)
