# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judging systemd-analyze verify (L12: it returns 0 for unknown keys), with its own words from 252 and 257."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _validate
from ansible_collections.holdfast.backup.plugins.module_utils._validate import Verdict, judge_units, validate_units

ETC = "/etc/systemd/system"
NAMES = {"/t/a.service": f"{ETC}/a.service", "/t/b@.service": f"{ETC}/b@.service", "/t/c.timer": f"{ETC}/c.timer"}
UNITS = {"a.service": f"{ETC}/a.service", "b@.service": f"{ETC}/b@.service", "c.timer": f"{ETC}/c.timer"}
NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "/t/a.service:3: Unknown key 'Foo' in section [Unit], ignoring.",
            "/a.service:3: Unknown key 'Foo' in section [Unit], ignoring.",
        ),
        (
            "/t/a.service:3: Unknown key name 'Foo' in section 'Unit', ignoring.",
            "/a.service:3: Unknown key name 'Foo' in section 'Unit', ignoring.",
        ),
        ("/t/a.service:4: Unknown section 'Bar'. Ignoring.", "/a.service:4: Unknown section 'Bar'. Ignoring."),
        (
            "/t/c.timer:2: Failed to parse calendar specification, ignoring: dail",
            "/c.timer:2: Failed to parse calendar specification, ignoring: dail",
        ),
        (
            "c.timer: Timer unit lacks value setting. Refusing.",
            "/c.timer: c.timer: Timer unit lacks value setting. Refusing.",
        ),
        ("Unit c.timer has a bad unit file setting.", "/c.timer: Unit c.timer has a bad unit file setting."),
        ("b@i.service: Something is wrong", "/b@.service: b@i.service: Something is wrong"),
    ],
)
@pytest.mark.parametrize("code", [0, 1])
def test_lines_about_us_are_errors_whatever_the_status(output: str, said: str, code: int) -> None:
    assert judge_units(code, output, NAMES, UNITS, NOTHING) == Verdict(errors=(ETC + said,))


def test_lines_about_others_are_not_ours() -> None:
    output = "/lib/systemd/system/ssh.service:3: Unknown key 'Foo' in section [Unit], ignoring.\nssh.service: odd\n"
    assert judge_units(0, output, NAMES, UNITS, NOTHING) == Verdict()


def test_a_refusal_that_names_nobody_is_an_error() -> None:
    verdict = judge_units(1, "Failed to prepare filename", NAMES, UNITS, NOTHING)
    assert "systemd-analyze verify refuses" in verdict.errors[0]
    assert "Failed to prepare filename" in verdict.errors[0]


def test_missing_command_is_not_checked_unless_we_install_it() -> None:
    output = (
        "a.service: Command /usr/local/bin/holdfast is not executable: No such file or directory\n"
        "b@i.service: Command /usr/bin/restic is not executable: No such file or directory\n"
        "ssh.service: Command /usr/bin/nope is not executable: No such file or directory\n"
    )
    verdict = judge_units(1, output, NAMES, UNITS, frozenset({"/usr/local/bin/holdfast"}))
    assert verdict == Verdict(not_checked=(f"{ETC}/b@.service: its command /usr/bin/restic is not installed",))


def test_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path: None)
    verdict = validate_units({f"{ETC}/a.service": b"x"}, [], str(tmp_path))
    assert verdict == Verdict(not_checked=(f"{ETC}/a.service: systemd-analyze is not installed",))


def test_drop_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []

    def run(argv: list[str]) -> tuple[int, str]:
        called.append(argv)
        return 0, f"{tmp_path}/a.service.d/x.conf:2: Unknown key 'Foo' in section [Service], ignoring.\n"

    monkeypatch.setattr(shutil, "which", lambda _name, path: "/usr/bin/systemd-analyze")
    monkeypatch.setattr(_validate, "_run", run)
    alone = {f"{ETC}/z.service.d/x.conf": b""}
    reason = f"{ETC}/z.service.d/x.conf: its unit z.service is not among the files"
    assert validate_units(alone, [], str(tmp_path)) == Verdict(not_checked=(reason,))
    assert called == []
    files = {**alone, f"{ETC}/a.service": b"", f"{ETC}/a.service.d/x.conf": b"[Service]\nFoo=1\n"}
    verdict = validate_units(files, [], str(tmp_path))
    assert verdict == Verdict(
        errors=(f"{ETC}/a.service.d/x.conf:2: Unknown key 'Foo' in section [Service], ignoring.",),
        not_checked=(reason,),
    )
    assert called == [["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"{tmp_path}/a.service"]]
    assert (tmp_path / "a.service.d/x.conf").read_bytes() == b"[Service]\nFoo=1\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_real_systemd_analyze(tmp_path: Path) -> None:
    good = {
        f"{ETC}/hf-a.service": b"[Unit]\nOnFailure=hf-r@%n.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
        f"{ETC}/hf-r@.service": b"[Service]\nExecStart=/bin/echo %i\n",
        f"{ETC}/hf-a.timer": b"[Timer]\nOnCalendar=daily\n",
    }
    (tmp_path / "good").mkdir()
    assert validate_units(good, [], str(tmp_path / "good")) == Verdict()
    (tmp_path / "bad").mkdir()
    bad = {**good, f"{ETC}/hf-a.timer": b"[Timer]\nOnCalendar=daily\nOnCalender=daily\n"}
    errors = validate_units(bad, [], str(tmp_path / "bad")).errors
    assert len(errors) == 1
    assert errors[0].startswith(f"{ETC}/hf-a.timer:3: Unknown key")
    (tmp_path / "missing").mkdir()
    missing = {f"{ETC}/hf-a.service": b"[Service]\nExecStart=/no/such/tool\n"}
    assert validate_units(missing, [], str(tmp_path / "missing")) == Verdict(
        not_checked=(f"{ETC}/hf-a.service: its command /no/such/tool is not installed",)
    )
