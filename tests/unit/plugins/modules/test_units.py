# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""units as Ansible runs it, against a small model of systemd that knows when a timer would fire."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _unit_requests
from ansible_collections.holdfast.backup.plugins.module_utils._systemd import SystemdError, UnitState
from ansible_collections.holdfast.backup.plugins.modules import units

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners are checked: needs root")
ETC = "/etc/systemd/system"
Run = Callable[..., dict[str, Any]]


class Killed(BaseException):
    """SIGKILL: no handler runs."""


class FakeSystemd:
    """Units by name; ``calls`` are the changes asked for. A timer started with an old stamp fires."""

    def __init__(self, stamps: Path) -> None:
        self.units: dict[str, UnitState] = {}
        self.calls: list[str] = []
        self.fired: list[str] = []
        self.broken: set[str] = set()
        self.stamps = stamps
        self.work_left = 0
        self.die_at = 0
        self.read_at = 0.0
        self.shown = 0
        self.changed_at: Callable[[float], None] = lambda _seconds: None

    def _call(self, verb: str, names: Sequence[str] = ()) -> None:
        self.die_at -= 1
        if self.die_at == 0:
            raise Killed
        self.calls.append(" ".join([verb, *names]))

    def set(self, name: str, **more: Any) -> None:
        self.units[name] = replace(self.units.get(name, UnitState(name, load="loaded", enabled="disabled")), **more)

    def show(self, names: Collection[str]) -> dict[str, UnitState]:
        self.shown += 1
        if self.work_left:
            self.work_left -= 1
        elif "hf.service" in self.units:
            self.set("hf.service", active="inactive")
        return {name: self.units.get(name, UnitState(name)) for name in names}

    def listed(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        return {name: (self.units[name].load, self.units[name].active) for name in names if name in self.units}

    def enablement(self, names: Sequence[str]) -> list[str]:
        return [self.units[name].enabled for name in names if name in self.units]

    def loaded(self) -> float:
        return self.read_at

    def stop(self, names: Sequence[str]) -> None:
        self._call("stop", names)
        for name in names:
            self.set(name, active="inactive")

    def enable(self, names: Sequence[str]) -> None:
        self._call("enable", names)
        for name in names:
            self.set(name, enabled="enabled")

    def disable(self, names: Sequence[str]) -> None:
        self._call("disable", names)
        for name in names:
            self.set(name, enabled="disabled")

    def mask(self, names: Sequence[str]) -> None:
        self._call("mask", names)
        for name in names:
            self.set(name, load="masked", enabled="masked")

    def unmask(self, names: Sequence[str]) -> None:
        self._call("unmask", names)
        for name in names:
            self.set(name, load="loaded", enabled="disabled")

    def daemon_reload(self) -> None:
        self._call("daemon-reload")
        for name, state in self.units.items():
            if state.stale and state.active == "active" and name.endswith(".timer"):
                self.fired.append(name)
            self.units[name] = replace(state, stale=False)

    def start(self, names: Sequence[str]) -> str:
        self._call("start", names)
        for name in names:
            if name in self.broken:
                self.set(name, active="failed", sub="failed")
                continue
            if name.endswith(".timer"):
                stamp = self.stamps / f"stamp-{name}"
                if not stamp.exists() or time.time() - stamp.stat().st_mtime > 60:
                    self.fired.append(name)
            self.set(name, active="active")
        return "Job failed." if self.broken & set(names) else ""

    def restart(self, names: Sequence[str]) -> str:
        self._call("restart", names)
        return ""

    def reload(self, names: Sequence[str]) -> None:
        self._call("reload", names)

    def reset_failed(self, names: Sequence[str]) -> None:
        self._call("reset-failed", names)
        for name in names:
            self.set(name, active="inactive")

    def journal(self, name: str) -> str:
        return f"the last words of {name}"


@pytest.fixture
def fake(place: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    made = FakeSystemd(place / "timers")
    monkeypatch.setattr(units, "STAMPS", str(place / "timers"))
    monkeypatch.setattr(units, "_BOOTED", str(place))
    monkeypatch.setattr(units, "_POLL", 0)
    monkeypatch.setattr(units, "Systemctl", lambda: made)
    monkeypatch.setattr(_unit_requests, "Systemctl", lambda: made)
    return made


@pytest.fixture
def run(run_module: Run, place: Path, fake: FakeSystemd) -> Run:
    def call(*, check: bool = False, **args: Any) -> dict[str, Any]:
        defaults = {"namespace": "jobs", "manifest_dir": str(place / "manifests")}
        return run_module(units, {**defaults, **args}, check=check)

    return call


def both(run: Run, fake: FakeSystemd, **args: Any) -> dict[str, Any]:
    """Check mode changes nothing and says what the real run does; the result is what is not empty."""
    before = dict(fake.units)
    calls = list(fake.calls)
    announced = run(check=True, **args)
    assert (fake.units, fake.calls) == (before, calls)
    real = run(**args)
    assert not real["failed"], real
    assert {k: v for k, v in announced.items() if k != "invocation"} == {
        k: v for k, v in real.items() if k != "invocation"
    }
    return {key: value for key, value in real.items() if value and key != "invocation"}


TIMERS = {"units": [{"name": "hf.timer", "state": "started"}]}


def converge(run: Run, fake: FakeSystemd) -> None:
    fake.set("hf.timer", triggers=("hf.service",), fragment=f"{ETC}/hf.timer")
    fake.set("hf.service", kind="oneshot", enabled="static")
    run(**TIMERS, changed_files=[f"{ETC}/hf.timer"])
    fake.calls.clear()
    fake.fired.clear()


def test_fresh_and_again(run: Run, fake: FakeSystemd, place: Path) -> None:
    assert both(run, fake, **TIMERS, changed_files=[f"{ETC}/hf.timer"]) == {
        "changed": True,
        "enabled": ["hf.timer"],
        "started": ["hf.timer"],
        "daemon_reload": True,
    }
    assert fake.calls == ["enable hf.timer", "daemon-reload", "start hf.timer"]
    assert fake.fired == []
    assert both(run, fake, **TIMERS) == {}
    assert len(fake.calls) == 3
    assert json.loads((place / "manifests/jobs.json").read_text())["units"] == {
        "hf.timer": {"restart_on": "", "reload_on": ""}
    }


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("echo '{\"units\": []}'", '{"units": []}\n'),
        ("echo '{}'; exit 1", "{}\n"),  # a bad definition among good ones
        ("exit 2", None),
        (None, None),
    ],
)
def test_what_the_program_says_is_returned_in_check_mode_too(
    run: Run, fake: FakeSystemd, place: Path, text: str | None, status: str | None
) -> None:
    converge(run, fake)
    program = place / "program"
    if text is not None:
        program.write_text(f"#!/bin/sh\ntest \"$*\" = 'status --json' || exit 3\n{text}\n")
        program.chmod(0o755)
    for check in (True, False):
        result = run(**TIMERS, status_program=str(program), check=check)
        assert (result["failed"], result["changed"], result["status"]) == (False, False, status)
    assert "status" not in run(**TIMERS)


def test_changed_timer_never_fires(run: Run, fake: FakeSystemd) -> None:
    converge(run, fake)
    os.utime(fake.stamps / "stamp-hf.timer", (0, 0))
    fake.set("hf.timer", stale=True)
    assert both(run, fake, **TIMERS) == {"changed": True, "restarted": ["hf.timer"], "daemon_reload": True}
    assert fake.calls == ["stop hf.timer", "daemon-reload", "start hf.timer"]
    assert fake.fired == []


def test_killed_at_any_step_the_next_run_converges_and_nothing_fires(run: Run, fake: FakeSystemd) -> None:
    for step in range(1, 8):
        converge(run, fake)
        fake.set("hf.timer", stale=True, enabled="disabled")
        os.utime(fake.stamps / "stamp-hf.timer", (0, 0))
        fake.die_at = step
        with contextlib.suppress(Killed):
            run(**TIMERS)
        fake.die_at = 0
        run(**TIMERS)
        assert (fake.units["hf.timer"].active, fake.units["hf.timer"].enabled) == ("active", "enabled")
        assert not fake.units["hf.timer"].stale
        assert fake.fired == []
        assert not run(check=True, **TIMERS)["changed"]
        fake.units.clear()


def test_killed_first_run_is_retired(run: Run, fake: FakeSystemd) -> None:
    fake.die_at = 3
    with pytest.raises(Killed):
        run(**TIMERS, changed_files=[f"{ETC}/hf.timer"])
    fake.die_at = 0
    assert run(retire_absent=True)["retired"] == ["hf.timer"]
    assert fake.units["hf.timer"].enabled == "disabled"


def test_phases(run: Run, fake: FakeSystemd) -> None:
    converge(run, fake)
    other = {"units": [{"name": "b.timer", "state": "started"}], "retire_absent": True}
    assert both(run, fake, **other, phase="retire") == {
        "changed": True,
        "stopped": ["hf.timer"],
        "disabled": ["hf.timer"],
        "retired": ["hf.timer"],
        "daemon_reload": True,
    }
    assert not (fake.stamps / "stamp-hf.timer").exists()
    assert both(run, fake, **other, phase="retire") == {}
    assert both(run, fake, **other, phase="converge", changed_files=[f"{ETC}/hf.timer", f"{ETC}/b.timer"]) == {
        "changed": True,
        "started": ["b.timer"],
        "enabled": ["b.timer"],
        "daemon_reload": True,
    }
    assert both(run, fake, **other) == {}


def test_retiring_does_not_wake_a_stale_declared_timer(run: Run, fake: FakeSystemd) -> None:
    converge(run, fake)
    fake.set("hf.timer", stale=True, fragment="/etc/hostname")
    fake.set("old.timer", enabled="enabled", active="active")
    result = run(**TIMERS, phase="retire", retire=["old.timer"])
    assert result["restarted"] == ["hf.timer"]
    assert fake.fired == []


def test_converge_does_not_retire(run: Run, fake: FakeSystemd) -> None:
    converge(run, fake)
    assert both(run, fake, units=[], retire_absent=True, phase="converge") == {}
    assert both(run, fake, units=[], retire_absent=True)["retired"] == ["hf.timer"]


def test_running_backup_of_a_retired_timer_is_waited_for(run: Run, fake: FakeSystemd) -> None:
    converge(run, fake)
    fake.set("hf.service", active="activating", sub="start")
    fake.work_left = 10_000
    result = run(units=[], retire_absent=True, wait=0)
    assert result["failed"]
    assert "hf.service still runs after 0 s" in result["msg"]
    assert fake.calls == ["stop hf.timer"]
    fake.work_left = 8
    result = run(units=[], retire_absent=True)
    assert result["waited_for"] == ["hf.service"]
    assert fake.work_left == 0
    assert not any("hf.service" in call for call in fake.calls)


def test_failure_of_a_retired_service_is_forgotten(run: Run, fake: FakeSystemd) -> None:
    fake.set("a.service", active="failed", enabled="enabled")
    assert both(run, fake, retire=["a.service"])["retired"] == ["a.service"]
    assert "reset-failed a.service" in fake.calls
    fake.set("b.service", active="active", enabled="disabled")

    def fail(names: Sequence[str]) -> None:
        fake.calls.append("stop " + " ".join(names))
        fake.set("b.service", active="failed")

    fake.stop = fail  # type: ignore[method-assign]
    run(retire=["b.service"])
    assert fake.calls[-2:] == ["stop b.service", "reset-failed b.service"]


def test_other_namespaces_timers(run: Run, fake: FakeSystemd, place: Path) -> None:
    converge(run, fake)
    fake.set("hf.timer", stale=True, fragment=str(place / "manifests/jobs.json"))
    result = both(run, fake, namespace="other", daemon_reload="always")
    assert result == {"changed": True, "restarted": ["hf.timer"], "daemon_reload": True}
    assert fake.fired == []
    fake.set("hf.timer", stale=True, fragment=str(place / "gone"))
    assert both(run, fake, namespace="other")["stopped"] == ["hf.timer"]


def test_restart_on_survives_a_kill(run: Run, fake: FakeSystemd, place: Path) -> None:
    config = place / "config"
    config.write_text("a")
    fake.set("a.service", active="active", enabled="enabled", can_reload=True)
    args: dict[str, Any] = {"units": [{"name": "a.service", "state": "started", "restart_on": [str(config)]}]}
    assert both(run, fake, **args) == {"changed": True, "restarted": ["a.service"]}
    assert both(run, fake, **args) == {}
    config.write_text("b")
    fake.die_at = 1
    with pytest.raises(Killed):
        run(**args)
    fake.die_at = 0
    assert both(run, fake, **args) == {"changed": True, "restarted": ["a.service"]}
    args["units"][0]["reload_on"] = args["units"][0].pop("restart_on")
    assert both(run, fake, **args) == {"changed": True, "reloaded": ["a.service"]}
    assert both(run, fake, **args) == {}


def test_order_of_sockets_services_timers(run: Run, fake: FakeSystemd) -> None:
    names = ("a.timer", "b.service", "c.socket")
    both(run, fake, units=[{"name": name, "state": "started"} for name in names])
    assert fake.calls[-3:] == ["start c.socket", "start b.service", "start a.timer"]


@pytest.fixture
def changed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """When the host's unit files last changed."""

    def change(seconds: float) -> None:
        monkeypatch.setattr(_unit_requests, "unit_files_changed", lambda: seconds)

    change(100.0)
    return change


def test_what_is_as_it_was_left_is_not_looked_at_closely(
    run: Run, fake: FakeSystemd, place: Path, changed_at: Callable[[float], None]
) -> None:
    converge(run, fake)
    wanted = [{"name": "hf.timer", "state": "started"}]

    def looks(*units: Any) -> int:
        before = fake.shown
        assert _unit_requests.settled("jobs", [*wanted, *units], str(place / "manifests"))
        return fake.shown - before

    fake.read_at = 101.0
    assert looks() == 0
    # Unit files that changed since systemd read them, and a systemd that does not say when it did.
    changed_at(102.0)
    assert looks() > 0
    fake.read_at = 0.0
    assert looks() > 0


@pytest.mark.parametrize("read_at", [0.0, 101.0], ids=["closely", "quickly"])
@pytest.mark.parametrize(
    "drift",
    [
        lambda fake, _manifest: fake.set("hf.timer", active="inactive"),
        lambda fake, _manifest: fake.set("hf.timer", enabled="disabled"),
        lambda fake, _manifest: (fake.set("hf.timer", stale=True), fake.changed_at(102.0)),
        lambda fake, _manifest: (fake.set("hf.service", stale=True), fake.changed_at(102.0)),
        lambda _fake, manifest: manifest.write_text(manifest.read_text().replace("hf.timer", "gone.timer")),
        lambda _fake, manifest: manifest.write_text("{}"),
        lambda _fake, manifest: manifest.unlink(),
    ],
    ids=["stopped", "disabled", "changed", "its service changed", "another one", "damaged", "forgotten"],
)
def test_settled_is_what_the_module_would_leave_as_it_is(
    run: Run,
    fake: FakeSystemd,
    place: Path,
    drift: Callable[..., Any],
    read_at: float,
    changed_at: Callable[[float], None],
) -> None:
    """host_info asks, so that the module need not run."""
    converge(run, fake)
    fake.read_at, fake.changed_at = read_at, changed_at
    wanted = [{"name": "hf.timer", "state": "started"}]
    directory = place / "manifests"
    assert _unit_requests.settled("jobs", wanted, str(directory))
    assert not _unit_requests.settled("jobs", [], str(directory))
    assert not _unit_requests.settled("jobs", [*wanted, {"name": "hf2.timer"}], str(directory))
    assert not _unit_requests.settled("jobs", [{"state": "started"}], str(directory))
    assert not _unit_requests.settled("jobs", [{"name": "hf.timer", "state": "stopped"}], str(directory))
    drift(fake, directory / "jobs.json")
    before = {path.name: path.read_text() for path in directory.iterdir()}
    assert not _unit_requests.settled("jobs", wanted, str(directory))
    assert {path.name: path.read_text() for path in directory.iterdir()} == before
    assert fake.calls == []


def test_masks(run: Run, fake: FakeSystemd) -> None:
    fake.set("a.service")
    assert both(run, fake, units=[{"name": "a.service", "masked": True}])["masked"] == ["a.service"]
    result = both(run, fake, units=[{"name": "a.service", "masked": False, "state": "stopped"}])
    assert (result["unmasked"], result["enabled"]) == (["a.service"], ["a.service"])


def test_failure_to_start_names_the_unit_and_its_journal(run: Run, fake: FakeSystemd) -> None:
    fake.broken = {"a.service"}
    message = run(units=[{"name": name, "state": "started"} for name in ("a.service", "b.service")])["msg"]
    assert message.startswith(
        "a.service did not start\nJob failed.\na.service is failed (failed):\nthe last words of a.service"
    )
    assert "words of b.service" not in message


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"namespace": "No"}, "namespace 'No'"),
        ({"manifest_dir": "/a/../b"}, "contains '..'"),
        ({"units": [{"name": "x"}]}, "units[0]: 'x' is not the full name"),
        ({"retire": ["x@.timer"]}, "retire: 'x@.timer'"),
        ({"units": [{"name": "x.timer"}, {"name": "x.timer"}]}, "x.timer is declared twice"),
        ({"units": [{"name": "x.timer"}], "retire": ["x.timer"]}, "is in units and in retire"),
    ],
)
def test_bad_input(run: Run, fake: FakeSystemd, args: dict[str, Any], said: str) -> None:
    assert said in run(**args)["msg"]
    assert fake.calls == []


@pytest.mark.parametrize("content", ['{"version": 2, "units": {}}', '{"version": 1, "units": []}', "x"])
def test_damaged_manifest(run: Run, place: Path, content: str) -> None:
    (place / "manifests").mkdir(mode=0o755)
    (place / "manifests/other.json").write_text(content)
    (place / "manifests/.x.json").write_text("ignored")
    assert "remove it to start anew" in run()["msg"]


def test_no_systemd(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_BOOTED", "/no/such/place")
    assert "systemd does not run on this host" in run(check=True)["msg"]


def test_errors_are_told(run: Run, fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise SystemdError("systemctl daemon-reload failed")

    monkeypatch.setattr(fake, "daemon_reload", refuse)
    assert run(daemon_reload="always")["msg"] == "systemctl daemon-reload failed"

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(units, "save", full)
    assert run(**TIMERS)["msg"] == "/x: No space left on device: mend this and run again"
