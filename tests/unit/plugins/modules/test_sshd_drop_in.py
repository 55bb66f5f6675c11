# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""sshd_drop_in as Ansible runs it, with an sshd that answers from memory; tests/attack has a real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _sshd
from ansible_collections.holdfast.backup.plugins.module_utils._run import Result
from ansible_collections.holdfast.backup.plugins.modules import sshd_drop_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners: needs root")
Run = Callable[..., dict[str, Any]]
CONTENT = "Match User bk-*\n  PermitTTY no\n"


class Sshd:
    """Says what it was told to say, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.test = Result(0)
        self.settings = Result(0, "permittty no\n")
        self.reload = Result(0)
        # OpenSSH 10.0.
        self.known = Result(0, "port 22\npersourcepenaltyexemptlist none\n")
        self.wanted = CONTENT
        # What holds without the lines that are for where nobody says anything.
        self.without = Result(0, "permittty no\nmaxstartups 10:30:100\npersourcemaxstartups none\n")

    def run(self, argv: list[str], *, timeout: float) -> Result:
        assert timeout > 0
        self.calls.append(argv)
        if argv[0] == "systemctl":
            return self.reload
        if argv[1:] == ["-G", "-f", "/dev/null"]:
            return self.known
        scratch = Path(argv[3])
        if argv[1] == "-T" and (scratch.parent / "drop-in.conf").read_text() == CONTENT != self.wanted:
            return self.without
        assert f"Include {scratch.parent}/drop-in.conf" in scratch.read_text()
        assert (scratch.parent / "drop-in.conf").read_text() == self.wanted
        if argv[1] == "-t":
            return Result(self.test.code, "", self.test.stderr.replace("COPY", f"{scratch.parent}/drop-in.conf"))
        return self.settings

    @property
    def reloads(self) -> int:
        return sum(call[0] == "systemctl" for call in self.calls)


@pytest.fixture
def sshd(place: Path, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    made = Sshd()
    (place / "ssh/sshd_config.d").mkdir(parents=True)
    (place / "ssh/sshd_config").write_text("Include sshd_config.d/*.conf\n")
    (place / "sshd").touch()
    for module in (_sshd, sshd_drop_in):
        monkeypatch.setattr(module, "MAIN", str(place / "ssh/sshd_config"))
    monkeypatch.setattr(sshd_drop_in, "SSHD", str(place / "sshd"))
    monkeypatch.setattr(sshd_drop_in, "PRIVATE", str(place / "run"))
    monkeypatch.setattr(sshd_drop_in, "PENDING", str(place / "lib/pending"))
    monkeypatch.setattr(sshd_drop_in, "run", made.run)
    return made


@pytest.fixture
def run(run_module: Run, place: Path, sshd: Sshd) -> Run:
    def call(*, check: bool = False, **args: Any) -> dict[str, Any]:
        known = {"path": str(place / "ssh/sshd_config.d/10-holdfast.conf"), "content": CONTENT, "users": ["bk-web1"]}
        return run_module(sshd_drop_in, {**known, "require": {"PermitTTY": "no"}, **args}, check=check)

    return call


def test_install_and_again(run: Run, place: Path, sshd: Sshd) -> None:
    announced = run(check=True)
    assert announced["changed"]
    assert announced["not_checked"] == [f"{place}/ssh/sshd_config.d/10-holdfast.conf: {place}/run is not there"]
    assert not (place / "run").exists()
    done = run()
    assert (done["changed"], done["reloaded"], sshd.reloads) == (True, True, 1)
    assert (place / "ssh/sshd_config.d/10-holdfast.conf").read_text() == CONTENT
    assert done["diff"]["after"] == CONTENT
    assert not run()["changed"]
    again = run(check=True)
    assert (again["changed"], again["not_checked"], sshd.reloads) == (False, [], 1)
    assert sum(call[1] == "-T" for call in sshd.calls) == 9  # in every run, so that other files are noticed


def test_lines_that_only_newer_ones_know(run: Run, place: Path, sshd: Sshd) -> None:
    path = place / "ssh/sshd_config.d/10-holdfast.conf"
    line = "PerSourcePenaltyExemptList 127.0.0.1"
    sshd.wanted = f"{line}\n{CONTENT}"
    sshd.settings = Result(0, "permittty no\npersourcepenaltyexemptlist 127.0.0.1\n")
    assert run(where_known=[line])["diff"]["after"] == sshd.wanted
    assert path.read_text() == sshd.wanted
    assert not run(where_known=[line])["changed"]
    # Another file says otherwise before.
    sshd.settings = Result(0, "permittty no\npersourcepenaltyexemptlist none\n")
    assert "persourcepenaltyexemptlist is 'none' and must be '127.0.0.1'" in run(where_known=[line])["msg"]
    for bad in ("", "PerSourcePenaltyExemptList", f"{line}\nPermitRootLogin yes"):
        assert "is not one line with a keyword and a value" in run(where_known=[bad])["msg"]
    # OpenSSH 9.2 does not know the option either.
    sshd.known, sshd.wanted, sshd.settings = (
        Result(1, "", "unknown option -- G\n"),
        CONTENT,
        Result(0, "permittty no\n"),
    )
    assert run(where_known=[line])["changed"]
    assert path.read_text() == CONTENT


def test_lines_for_what_nobody_sets(run: Run, place: Path, sshd: Sshd) -> None:
    """OpenSSH 9.2 has them, too, and no way to be asked without the configuration of the host."""
    path = place / "ssh/sshd_config.d/10-holdfast.conf"
    sshd.known = Result(1, "", "unknown option -- G\n")
    lines = [
        {"line": "MaxStartups 60:30:100", "default": "10:30:100"},
        {"line": "PerSourceMaxStartups 20", "default": "none"},
    ]
    sshd.wanted = f"MaxStartups 60:30:100\nPerSourceMaxStartups 20\n{CONTENT}"
    assert run(where_default=lines)["changed"]
    assert path.read_text() == sshd.wanted
    assert not run(where_default=lines)["changed"]
    assert not run(where_default=lines, check=True)["changed"]
    # The administrator says otherwise in another file, wherever it is: what they say holds.
    sshd.without = Result(0, "permittty no\nmaxstartups 10:30:100\npersourcemaxstartups 50\n")
    sshd.wanted = f"MaxStartups 60:30:100\n{CONTENT}"
    assert run(where_default=lines)["changed"]
    assert path.read_text() == sshd.wanted
    # An sshd that knows neither, and a configuration that cannot be read.
    sshd.wanted = CONTENT
    assert run(where_default=lines)["changed"]
    assert path.read_text() == CONTENT
    sshd.settings = Result(255, "", "no such thing\n")
    assert "no such thing" in run(where_default=lines)["msg"]
    for bad in ("MaxStartups", "MaxStartups 1\nPermitRootLogin yes"):
        said = run(where_default=[{"line": bad, "default": "none"}])["msg"]
        assert said.startswith(f"where_default: {bad!r} is not one line with a keyword and a value")


def test_refused_changes_nothing(run: Run, place: Path, sshd: Sshd) -> None:
    path = place / "ssh/sshd_config.d/10-holdfast.conf"
    path.write_text("old\n")
    sshd.test = Result(255, "", "COPY line 2: Bad configuration option\n")
    assert (
        run()["msg"] == f"sshd refuses the configuration, nothing was changed: {path} line 2: Bad configuration option"
    )
    sshd.test = Result(0)
    sshd.settings = Result(0, "permittty yes\n")
    assert "for user=bk-web1, nothing was changed: PermitTTY is 'yes' and must be 'no'" in run()["msg"]
    sshd.settings = Result(255, "", "no such thing\n")
    assert "no such thing" in run()["msg"]
    (place / "ssh/sshd_config").write_text("Port 22\n")
    assert "does not include" in run()["msg"]
    (place / "ssh/sshd_config").unlink()
    assert "install openssh-server" in run()["msg"]
    assert path.read_text() == "old\n"
    assert not sshd.reloads


@pytest.mark.parametrize("match", ["Address 10.0.0.0/8", "LocalPort 2222"])
def test_what_wins_for_some_clients_is_refused(run: Run, place: Path, sshd: Sshd, match: str) -> None:
    """Sshd says yes to every question here, and would do something else for clients that it was not asked about."""
    others = place / "ssh/sshd_config.d/05-theirs.conf"
    others.write_text(f"Match {match}\n  PermitTTY yes\n")
    for check in (False, True):
        (place / "run").mkdir(exist_ok=True)
        message = run(check=check)["msg"]
        assert f"nothing was changed: {others} line 2 has permittty yes under Match {match.lower()}. Let" in message
        assert "User *,!bk-*" in message
    assert not sshd.reloads
    others.write_text(f"Match {match} User *,!bk-*\n  PermitTTY yes\n")
    assert run()["changed"]
    others.rename(place / "ssh/sshd_config.d/50-theirs.conf")
    assert not run()["changed"]


def test_killed_before_the_reload(run: Run, place: Path, sshd: Sshd) -> None:
    sshd.reload = Result(1, "", "no bus\n")
    assert run()["msg"] == "ssh.service cannot be reloaded: no bus"
    assert (place / "lib/pending").exists()
    sshd.reload = Result(0)
    assert run(check=True)["changed"]
    assert run()["reloaded"]
    assert not run()["changed"]


def test_bad_input(run: Run, place: Path, sshd: Sshd) -> None:
    assert "is not absolute" in run(path="relative")["msg"]
    assert "is not the name of an account" in run(users=["a,addr=x"])["msg"]
    (place / "ssh/sshd_config.d").chmod(0o777)
    assert "writable by others" in run()["msg"]


def test_a_write_that_fails(run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device", "/etc/x")

    monkeypatch.setattr(sshd_drop_in.Tree, "write", full)
    assert run()["msg"] == "/etc/x: No space left on device: mend this and run again"
