"""Run `ansible-test sanity` on a copy of the collection, also where only PyPI can be reached.

ansible-test wants the collection in a directory `ansible_collections/holdfast/backup` without environments and caches:
it gets a copy of the files that git knows or would add. It also wants to download pip's bootstrap script from the
Ansible project's own site, once, into its cache. Where that is not in the cache yet, we put a short script there that
does the same with what Python brings along: `ensurepip`, and then the wanted pip from a wheel that our own pip laid
beside it (ansible-test passes no settings of pip on, so an old pip may not reach PyPI). All the rest is the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .tree import copy

# As in tests/config.yml.
LOWEST = "3.9"

BOOTSTRAP = '''\
"""Instead of pip's get-pip.py: bring pip into a new environment, without a download."""

import ensurepip
import os
import subprocess
import sys

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
beside = ["--no-index", "--find-links", os.path.dirname(os.environ["GET_PIP"])]
ensurepip.bootstrap()
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet"] + beside + wanted))
'''


def main() -> int:
    """Copy, then run ansible-test of the environment that runs this program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arguments", nargs="*", help="more for ansible-test sanity, say -- --test validate-modules")
    options = parser.parse_args()
    environment = Path(sys.prefix)
    command = [str(environment / "bin/ansible-test"), "sanity", "--requirements", "--color", "no", *options.arguments]
    provide_bootstrap()
    # Not inside the repository: ansible-test asks git which files count, and git ignores ours.
    with tempfile.TemporaryDirectory(prefix="holdfast-sanity-") as temporary:
        tree = copy(Path(temporary))
        path = search_path(environment, Path(temporary, "pythons"))
        return subprocess.run(command, cwd=tree, env={**os.environ, "PATH": path}, check=False).returncode


def provide_bootstrap() -> None:
    """Write the script above where ansible-test looks for pip's, for each version of pip that it pins."""
    found = importlib.util.find_spec("ansible_test")
    assert found is not None
    assert found.submodule_search_locations
    pins = Path(found.submodule_search_locations[0], "_internal/python_requirements.py").read_text()
    for version in set(re.findall(r"pip='([0-9.]+)'", pins)):
        cached = Path.home() / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
        if not cached.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"pip=={version}"]
            subprocess.run([*command, "--dest", str(cached.parent)], check=True, timeout=300)
            cached.write_text(BOOTSTRAP)


def search_path(environment: Path, links: Path) -> str:
    """A PATH with the environment's Python and, where there is one, the lowest that managed hosts may have.

    pyenv's own commands are left out: ansible-test takes them for Pythons, and they refuse to run.
    """
    links.mkdir()
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in sorted(pyenv.glob(f"versions/{LOWEST}.*/bin/python{LOWEST}"))[-1:]:
        (links / python.name).symlink_to(python)
    directories = [name for name in os.environ["PATH"].split(os.pathsep) if Path(name) != pyenv / "shims"]
    return os.pathsep.join([str(environment / "bin"), *directories, str(links)])


if __name__ == "__main__":
    sys.exit(main())
