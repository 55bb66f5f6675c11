# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of units, and the exact command lines of systemctl."""

from __future__ import annotations

import math
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _systemd
from ansible_collections.holdfast.backup.plugins.module_utils._systemd import (
    Record,
    Request,
    Systemctl,
    SystemdError,
    UnitsPlan,
    UnitState,
    WantedUnit,
    check_name,
    digest,
    make_plan,
    parse_show,
    unit_files_changed,
)

ETC = "/etc/systemd/system"

# `systemctl show` of systemd 252 for a running timer, its service, and a unit that does not exist.
SHOWN = """\
Triggers=hf.service
Id=hf.timer
LoadState=loaded
ActiveState=active
FragmentPath=/etc/systemd/system/hf.timer
UnitFileState=enabled
SubState=waiting
CanReload=no
NeedDaemonReload=yes

Type=oneshot
RemainAfterExit=no
OnFailure=rec@hf.service
OnSuccess=rec@hf.service other.service
Id=hf.service
LoadState=loaded
ActiveState=inactive
FragmentPath=/etc/systemd/system/hf.service
UnitFileState=static
SubState=dead
CanReload=no
NeedDaemonReload=no

Id=nope.service
LoadState=not-found
ActiveState=inactive
FragmentPath=
UnitFileState=
SubState=dead
CanReload=no
NeedDaemonReload=no
"""


def timer(name: str = "hf.timer", **more: Any) -> UnitState:
    defaults = {
        "load": "loaded",
        "active": "active",
        "sub": "waiting",
        "enabled": "enabled",
        "triggers": ("hf.service",),
    }
    return UnitState(**{"name": name, "fragment": f"{ETC}/{name}", **defaults, **more})


def service(name: str = "hf.service", **more: Any) -> UnitState:
    defaults = {"load": "loaded", "active": "active", "sub": "running", "enabled": "enabled", "kind": "simple"}
    return UnitState(**{"name": name, "fragment": f"{ETC}/{name}", **defaults, **more})


def oneshot(name: str = "hf.service", **more: Any) -> UnitState:
    defaults = {"active": "inactive", "sub": "dead", "enabled": "static", "kind": "oneshot"}
    return service(name, **{**defaults, **more})


def plan(request: Request, *states: UnitState) -> UnitsPlan:
    known = {name: UnitState(name) for name in request.names()}
    return make_plan(request, {**known, **{state.name: state for state in states}})


def wanted(name: str = "hf.timer", **more: Any) -> WantedUnit:
    return WantedUnit(**{"name": name, "state": "started", **more})


def test_parse_show() -> None:
    states = parse_show(SHOWN, ["hf.timer", "hf.service", "nope.service"])
    assert states["hf.timer"] == timer(stale=True)
    assert states["hf.service"] == oneshot(references=("rec@hf.service", "other.service", "rec@hf.service"))
    assert states["nope.service"] == UnitState("nope.service")
    with pytest.raises(SystemdError, match="answered for 3 of 2 units"):
        parse_show(SHOWN, ["a", "b"])


@pytest.mark.parametrize("name", ["a.service", "a-b_c:1.timer", "a@b.service", "a.b\\x2d.mount"])
def test_good_names(name: str) -> None:
    assert check_name(name, "units[0]") == name


@pytest.mark.parametrize(
    "name", ["a", "a@.service", "a b.service", "../a.service", "a.service\n", "-.slice", "a" * 255 + ".timer"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not the full name of a unit"):
        check_name(name, "units[0]")


def test_nothing_to_do() -> None:
    request = Request(units=(wanted(),), changed_files=frozenset({"/etc/holdfast/x.json"}))
    result = plan(request, timer(), oneshot())
    assert result == UnitsPlan()
    assert not result.changed
    assert not any(result.result().values())


def test_fresh_host() -> None:
    request = Request(units=(wanted(),), changed_files=frozenset({f"{ETC}/hf.timer"}))
    assert plan(request) == UnitsPlan(
        enable=("hf.timer",), daemon_reload=True, start=("hf.timer",), started=("hf.timer",)
    )


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({f"{ETC}/hf.timer"}, timer()),
        ({f"{ETC}/hf.timer.d/x.conf"}, timer()),
        ({"/usr/lib/systemd/system/hf.timer"}, timer()),
        (set(), timer(stale=True)),
    ],
)
def test_changed_timer_is_stopped_before_the_reload_and_started_after(changed: set[str], state: UnitState) -> None:
    request = Request(units=(wanted(),), changed_files=frozenset(changed))
    assert plan(request, state, oneshot()) == UnitsPlan(
        stop=("hf.timer",), daemon_reload=True, start=("hf.timer",), restarted=("hf.timer",)
    )


def test_instance_of_a_changed_template() -> None:
    request = Request(units=(wanted("hf@a.timer"),), changed_files=frozenset({f"{ETC}/hf@.timer"}))
    assert plan(request, timer("hf@a.timer")).restarted == ("hf@a.timer",)


def test_changed_service_only_reloads_the_manager() -> None:
    request = Request(units=(wanted(),), changed_files=frozenset({f"{ETC}/hf.service"}))
    assert plan(request, timer(), oneshot()) == UnitsPlan(daemon_reload=True)
    stale = Request(units=(wanted(),))
    assert plan(stale, timer(), oneshot(stale=True)) == UnitsPlan(daemon_reload=True)


@pytest.mark.parametrize(("option", "reload"), [("always", True), ("never", False)])
def test_reload_as_asked(option: str, reload: bool) -> None:
    request = Request(units=(wanted(),), changed_files=frozenset({f"{ETC}/hf.service"}), daemon_reload=option)
    assert plan(request, timer(), oneshot()).daemon_reload is reload


def test_timers_of_others_are_not_woken_by_our_reload() -> None:
    request = Request(
        known_timers=frozenset({"theirs.timer", "quiet.timer", "off.timer"}),
        changed_files=frozenset({f"{ETC}/undeclared.timer", f"{ETC}/gone.timer", f"{ETC}/a b.timer"}),
        absent=frozenset({"gone.timer"}),
    )
    result = plan(
        request,
        timer("theirs.timer", stale=True),
        timer("quiet.timer"),
        timer("off.timer", active="inactive", stale=True),
        timer("undeclared.timer"),
        timer("gone.timer"),
    )
    assert result.stop == ("gone.timer", "theirs.timer", "undeclared.timer")
    assert result.start == result.restarted == ("theirs.timer", "undeclared.timer")
    assert result.stopped == ("gone.timer",)


def test_stopped_and_failed_units_are_started() -> None:
    request = Request(units=(wanted(), wanted("b.service")))
    result = plan(request, timer(active="inactive"), oneshot(), service("b.service", active="failed"))
    assert result.started == ("b.service", "hf.timer")
    assert result.reset == ("b.service",)
    assert result.stop == ()


def test_restarting_service_is_not_healthy() -> None:
    assert not service(active="activating", sub="auto-restart").healthy
    assert service(active="activating", sub="start").healthy


def test_state_stopped() -> None:
    units = tuple(
        wanted(name, state="stopped", enabled=False) for name in ("a.service", "b.socket", "c.service", "d.service")
    )
    result = plan(
        Request(units=units),
        service("a.service"),
        service("b.socket", enabled="disabled", kind=""),
        oneshot("c.service", active="activating"),
        service("d.service", active="inactive", enabled="disabled"),
    )
    assert (result.stop, result.stop_later, result.wait_for) == (("b.socket",), ("a.service",), ("c.service",))
    assert result.disable == ("a.service",)
    assert result.stopped == ("a.service", "b.socket")


def test_unmanaged_state_is_left_alone() -> None:
    units = (wanted("a.service", state=None, restart=True), wanted("b.service", state=None, restart=True))
    result = plan(Request(units=units), service("a.service"), service("b.service", active="inactive"))
    assert result == UnitsPlan(restart=("a.service",), restarted=("a.service",))


def test_restart_reload_and_their_files() -> None:
    old, new = Record("r1", "l1"), Record("r2", "l2")
    restart = wanted("a.service", restart_on=("/etc/a",))
    reload = wanted("b.service", reload_on=("/etc/b",))
    states = (service("a.service"), service("b.service", can_reload=True))
    names = ("a.service", "b.service")
    same = Request(units=(restart, reload), records=dict.fromkeys(names, old), digests=dict.fromkeys(names, old))
    assert plan(same, *states) == UnitsPlan()
    differs = Request(units=(restart, reload), records=dict.fromkeys(names, old), digests=dict.fromkeys(names, new))
    expected = UnitsPlan(restart=("a.service",), reload=("b.service",), restarted=("a.service",))
    assert plan(differs, *states) == expected
    unknown = Request(units=(restart, reload), digests=dict.fromkeys(names, new))
    assert plan(unknown, *states) == expected
    announced = Request(
        units=(restart, reload),
        records=dict.fromkeys(names, old),
        digests=dict.fromkeys(names, old),
        changed_files=frozenset({"/etc/a", "/etc/b"}),
    )
    assert plan(announced, *states) == expected
    both = Request(units=(wanted("b.service", restart=True, reload=True),))
    assert plan(both, states[1]).reload == ()


def test_socket_is_not_bound_while_its_service_runs() -> None:
    socket = service("hf.socket", kind="", triggers=("hf.service",))
    request = Request(units=(wanted("hf.socket", restart=True),))
    assert plan(request, socket, service()) == UnitsPlan(
        stop=("hf.socket",),
        stop_later=("hf.service",),
        start=("hf.service", "hf.socket"),
        restarted=("hf.service", "hf.socket"),
    )
    assert plan(request, socket, service(active="inactive")).restarted == ("hf.socket",)
    fresh = plan(Request(units=(wanted("hf.socket"),)), service())
    assert fresh.stop_later == fresh.restarted == ("hf.service",)
    assert fresh.started == ("hf.socket",)


def test_masking() -> None:
    units = (wanted("a.service", state=None, masked=True), wanted("b.service", masked=False))
    result = plan(Request(units=units), service("a.service", active="inactive"), UnitState("b.service", load="masked"))
    assert (result.mask, result.unmask, result.enable) == (("a.service",), ("b.service",), ("b.service",))
    assert result.daemon_reload
    masked = UnitState("a.service", load="masked", enabled="masked")
    assert plan(Request(units=units[:1]), masked) == UnitsPlan()


@pytest.mark.parametrize(
    ("unit", "state", "said"),
    [
        (wanted("a.service", masked=True), service("a.service"), "masked and started"),
        (wanted("a.service"), UnitState("a.service", load="masked"), "is masked on the host"),
        (wanted("a.service"), service("a.service", enabled="static"), "no \\[Install\\] section"),
        (wanted("a.service", enabled=False), oneshot("a.service"), "is a oneshot service"),
        (wanted("a.service", reload=True), service("a.service"), "cannot be reloaded"),
    ],
)
def test_what_cannot_be_done(unit: WantedUnit, state: UnitState, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(Request(units=(unit,)), state)


def test_retire_a_timer_whose_service_runs() -> None:
    request = Request(retire=frozenset({"hf.timer"}))
    assert plan(request, timer(), oneshot(active="activating", sub="start")) == UnitsPlan(
        stop=("hf.timer",),
        wait_for=("hf.service",),
        disable=("hf.timer",),
        daemon_reload=True,
        retired=("hf.timer",),
        stopped=("hf.timer",),
    )


def test_retire_waits_for_no_service_that_stays() -> None:
    request = Request(units=(wanted("hf.service", enabled=False),), retire=frozenset({"hf.timer"}))
    assert plan(request, timer(), service(enabled="disabled")).wait_for == ()
    remains = service(kind="oneshot", remains=True, sub="exited", enabled="static")
    assert plan(Request(retire=frozenset({"hf.timer"})), timer(), remains).wait_for == ()


def test_retire_services_and_what_is_gone() -> None:
    request = Request(retire=frozenset({"a.service", "b.service", "c.service", "d.socket", "e.timer"}))
    result = plan(
        request,
        service("a.service"),
        oneshot("b.service", active="activating"),
        oneshot("c.service", active="failed"),
        service("d.socket", kind="", triggers=("a.service",)),
        oneshot("e.service", active="failed"),
    )
    assert (result.stop, result.stop_later, result.wait_for) == (("d.socket",), ("a.service",), ("b.service",))
    assert result.retired == ("a.service", "b.service", "c.service", "d.socket")
    assert result.reset == ("c.service", "e.service")
    assert plan(Request(retire=frozenset({"x.timer", "y.service"}))) == UnitsPlan()


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert digest(()) == ""
    absent = digest([str(path)])
    path.write_text("x")
    first = digest([str(path), str(tmp_path)])
    assert len({absent, first, digest([str(path)])}) == 3
    path.write_text("y")
    assert digest([str(path), str(tmp_path)]) != first


class Recorder:
    """Answers subprocess.run, and remembers the command lines."""

    def __init__(self, code: int = 0, out: str = "", err: str = "") -> None:
        self.answers = [(code, out, err)]
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert options["env"]["LC_ALL"] == "C"
        assert options["timeout"] > 0
        self.calls.append(tuple(argv))
        code, out, err = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return subprocess.CompletedProcess(argv, code, out.encode(), err.encode())


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(subprocess, "run", made)
    return made


def test_command_lines(recorder: Recorder) -> None:
    systemctl = Systemctl()
    for method in ("stop", "enable", "disable", "mask", "unmask", "start", "restart", "reload", "reset_failed"):
        getattr(systemctl, method)(["a.timer", "b.timer"])
    systemctl.daemon_reload()
    base = ("systemctl", "--no-ask-password")
    names = ("--", "a.timer", "b.timer")
    assert recorder.calls == [
        (*base, "stop", *names),
        (*base, "enable", "--no-reload", *names),
        (*base, "disable", "--no-reload", *names),
        (*base, "mask", "--no-reload", *names),
        (*base, "unmask", "--no-reload", *names),
        (*base, "start", *names),
        (*base, "restart", *names),
        (*base, "reload", *names),
        (*base, "reset-failed", *names),
        (*base, "daemon-reload"),
    ]
    recorder.answers = [(0, "the last words\n", "")]
    assert systemctl.journal("a.timer") == "the last words"
    assert recorder.calls[-1][-2:] == ("--unit", "a.timer")


def test_show_asks_once_and_reads_enablement_from_disk(recorder: Recorder) -> None:
    names = ["hf.timer", "hf.service", "nope.service"]
    blocks = SHOWN.split("\n\n")
    recorder.answers = [(0, "\n\n".join([blocks[1], blocks[0], blocks[2]]), ""), (1, "static\ndisabled\n", "")]
    states = Systemctl().show(names)
    assert len(recorder.calls) == 2
    assert recorder.calls[1] == ("systemctl", "is-enabled", "--", "hf.service", "hf.timer")
    assert (states["hf.service"].enabled, states["hf.timer"].enabled) == ("static", "disabled")
    assert states["nope.service"].load == "not-found"
    assert Systemctl().show([]) == {}
    assert len(recorder.calls) == 2
    # An answer of another shape is not taken.
    recorder.answers = [(0, blocks[0], ""), (1, "", "Failed")]
    assert Systemctl().show(["hf.timer"])["hf.timer"].enabled == "enabled"
    recorder.answers = [(0, blocks[2], "")]
    assert Systemctl().show(["nope.service"])["nope.service"].enabled == ""


def test_units_in_memory_are_listed_in_one_question(recorder: Recorder) -> None:
    # systemd 252.
    said = '[{"unit":"hf.timer","load":"loaded","active":"active","sub":"waiting","description":"x"}]'
    recorder.answers = [(0, said, "")]
    assert Systemctl().listed(["hf.timer", "nope.timer"]) == {"hf.timer": ("loaded", "active")}
    listing = ("systemctl", "list-units", "--all", "--output=json", "--")
    assert recorder.calls == [(*listing, "hf.timer", "nope.timer")]
    assert Systemctl().listed([]) == {}
    for answer in ("", "[1]", "{}"):
        recorder.answers = [(1, answer, "no bus")]
        assert Systemctl().listed(["hf.timer"]) == {}


def test_when_unit_files_were_read(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = tmp_path / "systemd-units-load"
    monkeypatch.setattr(_systemd, "_LOADED_FILE", str(touched))

    def loaded(reload: str, boot: int, file: float = 1000.0) -> float:
        recorder.answers = [(0, f"UnitsLoadStartTimestampMonotonic={boot}\nUnitsLoadTimestampMonotonic={reload}\n", "")]
        touched.touch()
        os.utime(touched, (file, file))
        return Systemctl().loaded()

    monkeypatch.setattr(time, "time", lambda: 2000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    # After a boot, and after a reload.
    assert loaded("0", 100_000_000) == 1000.0
    assert loaded("500000000", 100_000_000, 1400.0) == 1400.0
    # The clock was set forward or the host slept since, and the clock was set back.
    assert loaded("500000000", 100_000_000, 900.0) == 900.0
    assert loaded("500000000", 100_000_000, 5000.0) == 1400.0
    for answer in ("", "UnitsLoadTimestampMonotonic=\n", "UnitsLoadTimestampMonotonic=0\n"):
        recorder.answers = [(0, answer, "")]
        assert Systemctl().loaded() == 0.0
    touched.unlink()
    recorder.answers = [(0, "UnitsLoadTimestampMonotonic=500000000\n", "")]
    assert Systemctl().loaded() == 0.0


def test_when_unit_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed() -> bool:
        """Whether anything changed since the last call."""
        before, seen[0] = seen[0], unit_files_changed()
        time.sleep(0.02)  # the kernel's clock for files is a coarse one
        return seen[0] > before

    seen = [0.0]
    etc, packages = tmp_path / "etc", tmp_path / "usr/lib/systemd"
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(etc), str(tmp_path / "nowhere")))
    (etc / "hf.service.d").mkdir(parents=True)
    unit, drop_in = etc / "hf.timer", etc / "hf.service.d/more.conf"
    assert [changed(), changed()] == [True, False]
    for path, content in ((unit, "a"), (unit, "b"), (drop_in, "a"), (drop_in, "b")):
        path.write_text(content)
        assert [changed(), changed()] == [True, False], path
    unit.unlink()
    assert [changed(), changed()] == [True, False]
    (etc / "link.timer").symlink_to("/dev/null")
    assert [changed(), changed()] == [True, False]
    (etc / "linked.service").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("a")
    assert [changed(), changed()] == [True, False]
    (tmp_path / "elsewhere").write_text("b")
    assert [changed(), changed()] == [True, False]
    # What a package's unit says is its own.
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (f"/usr/lib/../..{packages}",))
    packages.mkdir(parents=True)
    (packages / "theirs.service").write_text("a")
    (packages / "service.d").mkdir()
    assert changed()
    (packages / "theirs.service").write_text("b")
    assert not changed()
    (packages / "service.d/all.conf").write_text("a")
    assert changed()
    monkeypatch.setattr(os, "listdir", lambda _path: ["gone.service"])
    monkeypatch.setattr(_systemd, "_UNIT_DIRECTORIES", (str(etc),))
    assert unit_files_changed() == math.inf, "what goes just now has changed"


def test_refusals_are_told(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder.answers = [(1, "", "Access denied\n")]
    with pytest.raises(SystemdError, match="systemctl stop -- a failed \\(status 1\\): Access denied"):
        Systemctl().stop(["a"])
    with pytest.raises(SystemdError, match="systemctl show failed"):
        Systemctl().show(["a"])
    assert Systemctl().start(["a"]) == "Access denied"

    def missing(_argv: Any, **_options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(SystemdError, match="this host has no systemd"):
        Systemctl().daemon_reload()

    def slow(argv: Any, **_options: Any) -> None:
        raise subprocess.TimeoutExpired(argv, 1)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(SystemdError, match="no answer within"):
        Systemctl().daemon_reload()


def test_digest_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert digest([str(tmp_path / "fifo")])
