"""tests/tools/setup: an environment whose making was interrupted is made anew."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENTS = {".venv": "requirements-test.txt", ".venvs/2.21": "requirements-test-2.21.txt"}
# In place of Python, whose environments take seconds: of one that it made the Python can install.
PYTHON = """#!/bin/sh
[ "$1 $2 $3" = "-m venv --clear" ] || exit 0
mkdir -p "$4/bin"
printf '#!/bin/sh\\n[ "$1 $2 $3" = "-m pip install" ]\\n' >"$4/bin/python"
"""
HALF_MADE = "#!/bin/sh\necho No module named pip >&2\nexit 1\n"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_environment_without_pip_is_made_anew(tmp_path: Path) -> None:
    """As Ctrl-C leaves it while pip is put into it."""
    program(tmp_path / "tests/tools/setup", "")
    shutil.copy(ROOT / "tests/tools/setup", tmp_path / "tests/tools/setup")
    for directory, requirements in ENVIRONMENTS.items():
        (tmp_path / requirements).write_text("ansible-core\n")
        program(tmp_path / directory / "bin/python", HALF_MADE)
    for name in ("git", "shellcheck", "jq"):
        program(tmp_path / "bin" / name, "#!/bin/sh\n")
    python = str(program(tmp_path / "python", PYTHON))
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    for said in (2, 0):
        done = subprocess.run(
            [str(tmp_path / "tests/tools/setup")],
            env={**os.environ, "PATH": path, "PYTHON": python, "PYTHON_2_21": python},
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(": installing requirements-test") == said
    for directory in ENVIRONMENTS:
        assert (tmp_path / directory / "bin/python").read_text() != HALF_MADE
