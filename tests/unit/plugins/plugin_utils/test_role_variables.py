"""Variables of roles are checked for all hosts at once, by the roles' own argument specs."""

from __future__ import annotations

import typing as t

import pytest
import yaml
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


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("jobs_on_failure", "Set backup_on_failure"),
        ("jobs_verify_repositories", "Set backup_verify_repositories"),
        ("borg_privilege", "Set restic_privilege"),
        ("rest_server_revoke_max", "Set backup_revoke_max"),
        ("escrow_recipients", "docs/jobs.md says what a user sets"),
        # It only asks for restic_privilege.
        ("jobs_capable_left", "docs/jobs.md says what a user sets"),
    ],
)
def test_what_the_playbooks_set_is_refused_with_what_to_set(name: str, cure: str) -> None:
    """A play's variables outrank the inventory: what the user wrote would be in force nowhere."""
    assert said(**{name: 1}) == [f"web1: {name} = 1: is set by the playbooks themselves. {cure}"]


def test_a_role_of_the_users_own_may_be_called_common() -> None:
    assert said(common_packages=["vim"], common_files={"a": 1}) == []


def test_what_the_playbooks_set_are_variables_of_roles_and_what_to_set_is_none_of_them() -> None:
    specs = [yaml.safe_load(path.read_text()) for path in _role_variables.ROLES.glob("*/meta/argument_specs.yml")]
    points = [point for spec in specs for point in spec["argument_specs"].values()]
    ours = _role_variables.set_by_playbooks()
    assert set(ours) <= {name for point in points for name in point.get("options", {})}
    assert len(ours) > 60
    assert not {cure.removeprefix("Set ") for cure in ours.values()} & set(ours)


def test_a_fact_named_like_that_is_of_its_own_host_only() -> None:
    variables: dict[str, dict[str, t.Any]] = {"web1": {}, "db1": {"jobs_on_failure": ["a\nb"]}}
    (problem,) = _role_variables.problems(variables, variables)
    assert problem.hosts == ("db1",)
    assert "\n" not in str(problem)


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


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("restic_release_mirror", "or set restic_install: none and put the program there yourself"),
        ("rest_server_release_mirror", "or set rest_server_install: none"),
        ("rclone_proxy_release_mirror", "or set rclone_proxy_install: none"),
        ("borg_release_url", "or set borg_install: none"),
        ("borg_borgmatic_index", "or leave it empty, with the index in /etc/pip.conf of the host"),
        ("borg_borgmatic_requirements", "with the index in /etc/pip.conf of the host"),
    ],
)
def test_credentials_in_an_address_to_download_from_are_refused_and_not_shown(name: str, cure: str) -> None:
    (message,) = said(**{name: "https://bob:s3cretpw@mirror.example.net/restic"})
    assert message.startswith(
        f"web1: {name} = <hidden>: contains credentials, which the host and a run's output would show. "
    )
    assert cure in message
    assert "s3cretpw" not in message
    assert said(**{name: "https://mirror.example.net/@scope"}) == []
    # Ansible takes a list for text.
    assert said(**{name: ["https://bob:s3cretpw@mirror.example.net"]}) == [message]


def test_every_address_to_download_from_is_looked_at() -> None:
    addresses = {name for name in _role_variables.specs() if name.endswith(("_mirror", "_url", "_index"))}
    assert addresses | {"borg_borgmatic_requirements"} == set(_role_variables.DOWNLOADS)
    assert {
        f"{cure.split('set ')[1].split(':')[0]}" for cure in _role_variables.DOWNLOADS.values() if "set " in cure
    } <= set(_role_variables.specs())
