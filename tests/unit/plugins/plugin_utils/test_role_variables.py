"""Variables of roles are checked for all hosts at once, by the roles' own argument specs."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _bcrypt
from ansible_collections.holdfast.backup.plugins.module_utils._htpasswd import Policy
from ansible_collections.holdfast.backup.plugins.modules.identity import ARGUMENT_SPEC
from ansible_collections.holdfast.backup.plugins.plugin_utils import _role_variables


class Broken(dict[str, t.Any]):
    """Variables of which one is a template that fails."""

    def __getitem__(self, name: str) -> t.Any:
        if name == "restic_package":
            raise ValueError("'nobody' is undefined")
        return super().__getitem__(name)


def said(**variables: t.Any) -> list[str]:
    return [str(problem) for problem in _role_variables.problems({"web1": variables}, ["web1"])]


def test_variables_of_every_role_are_known_and_none_is_required() -> None:
    specs = _role_variables.specs()
    assert {role for role, _spec in specs.values()} >= {"restic", "jobs", "escrow", "rest_server", "borg"}
    assert not [name for name, (_role, spec) in specs.items() if spec["required"]]
    assert said() == []


def test_there_is_one_cost_of_bcrypt() -> None:
    # Clients hash their passwords, servers refuse another cost, preflight the hash of an extra user: no variable moves one of them.
    assert not [name for name in _role_variables.specs() if "bcrypt" in name]
    assert Policy("f").cost == ARGUMENT_SPEC["bcrypt_cost"]["default"] == _bcrypt.COST


def test_good_values_pass() -> None:
    assert (
        said(restic_install="release", restic_release_sha256={"x86_64": "0" * 64}, unknown="x", restic_package=None)
        == []
    )


def test_a_bad_value_is_named_with_its_choices_and_where_to_read_on() -> None:
    (message,) = said(restic_install="compile")
    assert message.startswith("web1: restic_install = 'compile': ")
    assert "package, release, none" in message
    assert message.endswith("docs/reference/restic_role.md says what it may be")


def test_a_bad_type_and_a_bad_template_are_two_problems() -> None:
    variables = Broken(restic_install="none", restic_package="{{ nobody }}", restic_extra_packages={"a": 1})
    found = [str(problem) for problem in _role_variables.problems({"web1": variables}, ["web1"])]
    assert len(found) == 2
    assert any("restic_package: cannot be evaluated: 'nobody' is undefined" in message for message in found)
    assert any("restic_extra_packages" in message for message in found)


def test_what_the_model_told_is_not_told_again() -> None:
    variables = {host: {"restic_install": "compile"} for host in ("web1", "web2")}
    (problem,) = _role_variables.problems(variables, ["web1", "web2"], {("web1", "restic_install")})
    assert problem.hosts == ("web2",)


def test_hosts_with_the_same_problem_share_a_message() -> None:
    variables = {host: {"restic_install": "compile"} for host in ("web1", "web2")}
    (problem,) = _role_variables.problems(variables, ["web1", "web2"])
    assert problem.hosts == ("web1", "web2")


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"name": ("rest_server", {"type": "int", "required": False, "no_log": True})}
    monkeypatch.setattr(_role_variables, "specs", lambda: secret)
    (message,) = said(name="hunter2")
    assert "hunter2" not in message
    assert "<hidden>" in message
