# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every play of the collection, so that a new one cannot forget it."""

from __future__ import annotations

import typing as t
from pathlib import Path

import jinja2.meta
import pytest
import yaml
from ansible_collections.holdfast.backup.plugins.plugin_utils import _limit

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
# Keywords whose texts are expressions without braces.
CONDITIONS = {"when", "that", "failed_when", "changed_when", "until"}
# Actions that ask no host for anything.
ON_THE_CONTROLLER = {
    f"{collection}.{name}"
    for collection, names in (
        ("ansible.builtin", ("assert", "debug", "fail", "meta")),
        ("holdfast.backup", ("handover", "preflight", "report", "state")),
    )
    for name in names
}
# Plays without a bound, and why.
UNBOUNDED = {
    "backup.yml: Back up now": "a backup takes as long as it takes, up to its job's own timeout of a day, say",
    "restore.yml: Restore": "it takes as long as it takes, and nobody else waits: it is one client's",
}
# What Ansible itself says, whatever a host says, and what no template reads.
MAGIC = {"groups", "hostvars", "inventory_hostname", "lookup", "now", "omit", "_"}


def plays() -> list[tuple[str, dict[str, t.Any]]]:
    """Each with its name and that of its playbook; where one imports a playbook, that is one, too."""
    found = [(path, play) for path in sorted(PLAYBOOKS.glob("*.yml")) for play in yaml.safe_load(path.read_text())]
    return [(f"{path.name}: {play['name']}", play) for path, play in found]


class Anything(dict[str, t.Any]):
    """Filters or tests of whatever name: only variables are looked for."""

    def get(self, _name: str, _default: t.Any = None) -> t.Any:
        return str


JINJA = jinja2.Environment(autoescape=True)
JINJA.filters, JINJA.tests = Anything(), Anything()


def names(value: t.Any, condition: bool = False) -> set[str]:
    """The variables that templates and conditions below a value ask for."""
    if isinstance(value, dict):
        found: set[str] = set()
        for key, each in value.items():
            found |= names(each, condition=key in CONDITIONS)
        return found - set(value.get("vars", {})) - {value.get("register")}
    if isinstance(value, list):
        return set().union(*(names(each, condition) for each in value))
    if not isinstance(value, str):
        return set()
    return jinja2.meta.find_undeclared_variables(JINJA.parse(f"{{{{ {value} }}}}" if condition else value))


def test_what_the_command_line_may_say_is_set_at_the_plays_level() -> None:
    """A host that delivers a fact of such a name would speak in its user's place: facts outrank the inventory, but no play."""
    included = names([yaml.safe_load(path.read_text()) for path in PLAYBOOKS.glob("tasks/*.yml")])
    bare = {}
    for name, play in plays():
        files = [yaml.safe_load((PLAYBOOKS / file).read_text()) for file in play.get("vars_files", [])]
        asked = (names(play) | names(files) | included) - MAGIC - set().union(*files)
        bare[name] = sorted(each for each in asked if not each.startswith("ansible_") and not _limit.OURS.match(each))
    assert {name: found for name, found in bare.items() if found} == {}


def test_no_configuration_runs_a_play_in_another_order() -> None:
    """The strategy free knows neither run_once nor any_errors_fatal, by which bad input stops everybody."""
    own = {name: play.get("strategy") for name, play in plays() if "hosts" in play}
    assert own == dict.fromkeys(own, "ansible.builtin.linear")


def test_no_configuration_lets_one_host_end_the_others() -> None:
    """any_errors_fatal of ansible.cfg counts wherever a play does not say what it wants."""
    own = {name: play.get("any_errors_fatal") for name, play in plays() if "hosts" in play}
    assert {name for name, fatal in own.items() if fatal is True} == {
        "asked.yml: Check who is asked",
        "decommission.yml: Remember that the client is decommissioned",
        "model.yml: Check the inventory of the whole fleet",
        "rotate.yml: Check what is asked for",
        "site.yml: Check the inventory of the whole fleet",
    }
    assert {name for name, fatal in own.items() if not isinstance(fatal, bool)} == set()


def test_a_play_that_looks_at_hosts_knows_what_each_may_need() -> None:
    """What a host is asked for is made of variables of all these roles: a server may be a client, too."""
    looking = 0
    for name, play in plays():
        imported = [
            task["ansible.builtin.import_role"]
            for task in play.get("tasks", [])
            if "ansible.builtin.import_role" in task
        ]
        if any((each["name"], each.get("tasks_from")) == ("holdfast.backup.common", "preflight") for each in imported):
            looking += 1
            known = {each["name"].split(".")[-1] for each in imported if each.get("tasks_from") == "paths"}
            assert known >= {"restic", "borg", "rest_server", "ssh_identity", "ssh_access", "rclone_proxy"}, name
    assert looking == 2


def actions(tasks: list[dict[str, t.Any]]) -> set[str]:
    """What the tasks and blocks of a play do."""
    found = {key for task in tasks for key in task if "." in key}
    blocks = [task[part] for task in tasks for part in ("block", "rescue", "always") if part in task]
    return found.union(*map(actions, blocks))


def test_who_hangs_fails_and_the_others_go_on() -> None:
    """Of a host that never answers nobody else may keep an old key, or go without units."""
    bare = {
        name
        for name, play in plays()
        if (play.get("gather_facts") or actions(play.get("tasks", [])) - ON_THE_CONTROLLER) and not play.get("timeout")
    }
    assert bare == set(UNBOUNDED)


def bounds(value: t.Any) -> list[t.Any]:
    """The bounds of plays and tasks below a value; an option of a module may be called so, too."""
    if isinstance(value, list):
        return [bound for each in value for bound in bounds(each)]
    if not isinstance(value, dict):
        return []
    own = [value["timeout"]] if "timeout" in value and ("hosts" in value or any("." in key for key in value)) else []
    return own + bounds(list(value.values()))


def test_who_hangs_does_not_say_how_long_it_may() -> None:
    """A fact outranks the inventory and a role's default, but neither a registered result nor what a play says."""
    paths = [*PLAYBOOKS.glob("**/*.yml"), *PLAYBOOKS.parent.glob("roles/*/tasks/*.yml")]
    found = bounds([yaml.safe_load(path.read_text()) for path in paths])
    assert any("answer_timeout" in str(bound) for bound in found)
    assert any("jobs_next_passwords" in str(bound) for bound in found)
    safe = {"__holdfast_preflight", "inventory_hostname", *yaml.safe_load((PLAYBOOKS / "vars/facade.yml").read_text())}
    assert names(found) - safe == set()


def test_a_running_backup_is_waited_for_by_who_retires_its_job() -> None:
    """It ends with a message of the module units, which says what to do, and not in the middle."""
    documented = yaml.safe_load((PLAYBOOKS.parent / "plugins/modules/units.py").read_text().split('"""')[1])
    waits = documented["options"]["wait"]["default"]
    bounds = {
        name: play["timeout"]
        for name, play in plays()
        for task in play.get("tasks", [])
        if "holdfast.backup.units" in task or task.get("name") == "Run the jobs"
    }
    assert sorted(bounds) == [
        "decommission.yml: Stop the client's timers, where it can be reached",
        "site.yml: Protect the clients",
    ]
    assert min(bounds.values()) >= 2 * waits


def test_whatever_becomes_of_the_servers_a_decommission_says_what_is_left_to_do() -> None:
    written = yaml.safe_load((PLAYBOOKS / "decommission.yml").read_text())
    first, revoke, stop, told = written
    assert revoke["tasks"][0]["ansible.builtin.meta"] == "end_host"
    assert revoke["hosts"] == "all"
    assert first["hosts"] == told["hosts"]
    assert stop["ignore_unreachable"] is stop["ignore_errors"] is True


@pytest.mark.parametrize("playbook", ["site.yml", "rotate.yml"])
def test_the_last_host_of_a_group_that_fails_ends_nothing(playbook: str) -> None:
    """Ansible ends the playbook where all hosts of a play fail; a server must still revoke what a client lost, say."""
    written = yaml.safe_load((PLAYBOOKS / playbook).read_text())
    bare = [play["name"] for play in written if play.get("hosts") in ("backup_clients", "backup_servers")]
    assert bare == []
    for play in written:
        if play.get("hosts") == "backup_clients:backup_servers" and not play["gather_facts"]:
            assert play["tasks"][0]["ansible.builtin.meta"] == "end_host", play["name"]
