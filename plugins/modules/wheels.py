#!/usr/bin/python
# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wheels
short_description: Install Python wheels with hashes into an environment of their own
version_added: '0.1.0'
author:
  - holdfast contributors (@holdfast-backup)
description:
  - Makes a virtual environment, and has its C(pip) install exactly the wheels that are named, each verified by its hash. Nothing is
    compiled, and nothing is installed that is not named.
  - A record in the environment says what was installed for which Python, so a converged run asks no index, one that was cut off
    is done again, and an environment whose Python was replaced by a later one is made anew.
  - The host needs C(venv) of its Python, which is the package C(python3-venv) on Debian.
extends_documentation_fragment: [holdfast.backup.attributes.host]
attributes:
  check_mode:
    support: full
    description: Downloads nothing.
  diff_mode:
    support: full
    description: Shows which requirements and which Python.
options:
  requirements:
    description: Lines of a requirements file, each with its hashes, and without credentials, as O(index).
    type: str
    required: true
  path:
    description: Directory of the environment.
    type: path
    required: true
  index:
    description:
      - Index to install from. Empty is what C(pip) of the host uses, PyPI by default. Proxies are taken from the environment.
      - It may be plain HTTP, since each file is verified by its hash.
      - One with a user or a password is refused, since it would be shown. Name it in C(/etc/pip.conf) of the host, and
        leave this empty.
    type: str
    default: ''
  python:
    description: The Python that the environment is made of.
    type: path
    default: /usr/bin/python3
  timeout:
    description: Seconds for all of it.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Install borgmatic from a mirror
  holdfast.backup.wheels:
    requirements: "{{ lookup('ansible.builtin.file', 'borgmatic.txt') }}"
    path: /usr/local/lib/holdfast-borgmatic
    index: http://mirror.example.org/simple/
"""

RETURN = r"""
path:
  description: Directory of the environment.
  returned: success
  type: str
  sample: /usr/local/lib/holdfast-borgmatic
python_version:
  description: Version of the Python that the environment is made of.
  returned: success
  type: str
  sample: '3.11'
"""

import os
import posixpath
import re
import time
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._failures import told
from ..module_utils._files import Tree, check_path, sha256
from ..module_utils._location import refuse_credentials
from ..module_utils._run import Result, run

RECORD = "holdfast.json"
_INDEX = re.compile(r"\Ahttps?://[^/\s]+(?:/\S*)?\Z")
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_INSTALL = ("-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "install")
_EXACTLY = ("--require-hashes", "--only-binary=:all:", "--no-deps")


def lines(requirements: str, index: str) -> str:
    """Return the requirements file for pip."""
    if not requirements.strip():
        raise ValueError("requirements are empty: give the lines of a requirements file, each with its hashes")
    if not index:
        return f"{requirements}\n"
    if not _INDEX.match(index):
        raise ValueError(f"index {index!r} is not an http or https address")
    parts = urlsplit(index)
    trusted = f"--trusted-host {parts.netloc}\n" if parts.scheme == "http" else ""
    return f"--index-url {index}\n{trusted}{requirements}\n"


def why(result: Result) -> str:
    """Return what pip or venv said of its failure."""
    if result.timed_out:
        return "it did not end in time"
    said = [line.strip() for line in f"{result.stderr}\n{result.stdout}".splitlines() if line.strip()]
    errors = [line[len("ERROR:") :].strip() for line in said if line.startswith("ERROR:")]
    return (errors or said or [f"exit status {result.code}"])[0]


def _run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    path = check_path(params["path"], "path")
    wanted = lines(params["requirements"], params["index"])
    deadline = time.monotonic() + params["timeout"]
    proxies = {name: os.environ[name] for each in _PROXIES for name in (each, each.upper()) if name in os.environ}

    def call(*argv: str, files: dict[str, bytes] | None = None) -> Result:
        left = max(1.0, deadline - time.monotonic())
        # Accounts without rights start what is installed.
        return run(argv, timeout=left, environment=proxies, arguments=files, umask=0o022)

    asked = call(params["python"], "-c", _VERSION)
    if asked.code != 0:
        raise ValueError(f"python {params['python']} does not tell its version: {why(asked)}")
    version = asked.stdout.strip()
    known = {"requirements_sha256": sha256(params["requirements"].encode()), "python_version": version}
    own = posixpath.join(path, "bin/python")
    with Tree() as tree:
        record = tree.read_json(posixpath.join(path, RECORD))
        fresh = record is None or record.get("python_version") != version or tree.entry(own) is None
        changed = fresh or record != known
        if changed and not module.check_mode:
            tree.make_parents(path)
            made = call(params["python"], "-m", "venv", "--clear", path) if fresh else Result(0)
            if made.code != 0:
                raise ValueError(f"{path} cannot be made: {why(made)}: is the package python3-venv installed?")
            done = call(own, *_INSTALL, *_EXACTLY, files={"--requirement": wanted.encode()})
            if done.code != 0:
                raise ValueError(
                    f"requirements: {why(done)}: name every package with the hash of a wheel for Python {version} of this"
                    " host, and an index that it reaches"
                )
            # Last, so that a killed run installs again.
            tree.write_json(posixpath.join(path, RECORD), known, mode=0o644)
    return {
        "changed": changed,
        "path": path,
        "python_version": version,
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": _describe(record),
            "after": _describe(known),
        },
    }


def _describe(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    return f"Python {record.get('python_version')}, requirements {record.get('requirements_sha256')}\n"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "requirements": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "index": {"type": "str", "default": ""},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    with told(module):
        refuse_credentials(module.params, "index", "requirements")
        result = _run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
