# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule by which secrets are made, kept, refused and rotated."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _secrets, _ssh
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import (
    Identity,
    Plan,
    RestPassword,
    SecretsError,
    Stored,
    Wanted,
)

from tests.unit.plugins.module_utils.recorded_borg import EXPORTED, KEY

DIRECTORY = "/etc/holdfast/secrets"
REST = Wanted("vault", "restic", "rest", "rest:https://vault1:8000/web1--vault/", rest_user="web1--vault")
LOCAL = Wanted("disk", "restic", "local", "/var/backups/disk")
BARE = Stored()
NOW = 1_800_000_000.0
# Hashes of the right form and cost; nothing verifies them here.
H = {name: f"$2b$12${name * 53}" for name in "abcdef"}


class Hasher:
    """Makes recognisable hashes and counts its calls."""

    def __init__(self, cost: int = 12) -> None:
        self.calls: list[str] = []
        self._cost = cost

    def __call__(self, password: str) -> str:
        self.calls.append(password)
        return f"$2b${self._cost}${str(len(self.calls)) * 53}"


def make(wanted: Wanted, stored: Stored = BARE, hasher: Any = None, now: float = NOW, cost: int = 12) -> Plan:
    return _secrets.plan(
        wanted,
        stored,
        fleet=("fleet", "web1"),
        now=now,
        cost=cost,
        hasher=hasher or Hasher(cost),
        keymaker=lambda comment: f"key {comment}",
    )


def changed(wanted: Wanted, **options: Any) -> Wanted:
    return dataclasses.replace(wanted, **options)


def errors(wanted: Wanted, stored: Stored = BARE) -> list[str]:
    return _secrets.check(wanted, stored, DIRECTORY)


# --- locations and environment


def test_credentials_are_percent_encoded_into_the_location() -> None:
    location = _secrets.rest_location("rest:https://[2001:db8::1]:8000/web1--vault/", "web1--vault", "a/b@c:d%é")
    assert location == "rest:https://web1--vault:a%2Fb%40c%3Ad%25%C3%A9@[2001:db8::1]:8000/web1--vault/"


@pytest.mark.parametrize(
    "location", ["/var/x", "rest:https://u:p@h/x/", "rest:ftp://h/x/", "rest:https://h", "rest:https://h/ x"]
)
def test_other_locations_take_no_credentials(location: str) -> None:
    with pytest.raises(SecretsError, match="rest:https://HOST"):
        _secrets.rest_location(location, "u", "p")


def test_environment_survives_writing_and_reading() -> None:
    values = {
        "PLAIN": "a/b+c=",
        "EMPTY": "",
        "ODD": " \"quoted\" \\ $HOME `x` 'y' # ; ",
        "B_2": "ü",
        "LINES": "a\x85b\u2028c",
    }
    text = _secrets.render_environment(values)
    assert _secrets.parse_environment(text) == values
    assert text.split("\n")[3] == 'ODD=" \\"quoted\\" \\\\ \\$HOME \\`x\\` \'y\' # ; "'
    assert _secrets.parse_environment("# comment\n\nA=1\n") == {"A": "1"}
    with pytest.raises(SecretsError, match="line 2"):
        _secrets.parse_environment("A=1\nnonsense\n")


# --- the file .identity


def test_identity_survives_writing_and_reading() -> None:
    identity = Identity("ab", "f1", ("f0",), 7, "u", RestPassword("p", H["a"]), RestPassword("q", H["b"]))
    assert Identity.parse(identity.render()) == identity
    assert Identity.parse(Identity("ab").render()) == Identity("ab")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', Identity("zz").render(), Identity("ab").render().replace('"salt"', '"sal"')],
)
def test_damaged_identity(text: str) -> None:
    with pytest.raises(SecretsError, match="damaged"):
        Identity.parse(text)


def test_identity_of_a_newer_format() -> None:
    with pytest.raises(SecretsError, match="has format 2, this version reads format 1"):
        Identity.parse(Identity("ab").render().replace('"format": 1', '"format": 2'))


def test_accepted_fingerprints() -> None:
    identity = Identity("ab", "new", ("old",), previous_until=100)
    assert identity.accepted_fingerprints(99) == ["new", "old"]
    assert identity.accepted_fingerprints(100) == ["new"]
    assert Identity("ab").accepted_fingerprints(0) == []


# --- making and keeping


def test_a_bare_host_gets_secrets_of_its_own() -> None:
    hasher = Hasher()
    first, second = make(REST, hasher=hasher), make(REST)
    assert first.made
    assert first.unborn
    assert first.files.password != second.files.password
    assert len(str(first.files.password)) == 43
    current = first.identity.rest_current
    assert current is not None
    assert hasher.calls == [current.password]
    assert first.files.repository == f"rest:https://web1--vault:{current.password}@vault1:8000/web1--vault/\n"
    assert first.files.environment == ""
    assert first.identity.rest_next is None
    assert first.identity.salt != second.identity.salt
    assert [suffix for suffix, text in first.files.files().items() if text is not None] == [
        "password",
        "identity",
        "repository",
        "environment",
    ]


def test_a_converged_run_changes_nothing_and_hashes_nothing() -> None:
    before = make(REST).files
    hasher = Hasher()
    after = make(REST, before, hasher, now=NOW + 99999)
    assert after.files == before
    assert hasher.calls == []
    assert (after.made, after.unborn, after.warning) == (False, False, None)


def test_local_repositories_have_no_rest_password() -> None:
    done = make(changed(LOCAL, environment={"A": "b"}))
    assert done.files.repository == "/var/backups/disk\n"
    assert done.files.environment == "A=b\n"
    assert done.identity.rest_current is None
    assert done.bundle["rest_password"] is None
    assert done.made


def test_bundle_holds_what_a_restore_needs() -> None:
    wanted = changed(REST, environment={"A": "b"}, repository_id="id", key_id="key", rest_rotate=True)
    done = make(wanted, make(REST).files)
    current, following = done.identity.rest_current, done.identity.rest_next
    assert current is not None
    assert following is not None
    assert done.bundle == {
        "format": 1,
        "fleet_id": "fleet",
        "host": "web1",
        "repository": "vault",
        "engine": "restic",
        "access": "rest",
        "location": "rest:https://vault1:8000/web1--vault/",
        "password": done.files.password,
        "rest_user": "web1--vault",
        "rest_password": current.password,
        "rest_next_password": following.password,
        "environment": {"A": "b"},
        "repository_id": "id",
        "key_id": "key",
    }


def test_fingerprint_follows_the_plaintext_and_the_old_one_stays_good_for_a_while() -> None:
    first = make(REST)
    second = make(changed(REST, repository_id="id"), first.files, now=NOW + 10)
    assert second.identity.fingerprint != first.identity.fingerprint
    assert second.identity.previous == (first.identity.fingerprint,)
    assert second.identity.accepted_fingerprints(NOW + 10 + 3599) == [
        second.identity.fingerprint,
        first.identity.fingerprint,
    ]
    assert second.identity.accepted_fingerprints(NOW + 10 + 3600) == [second.identity.fingerprint]
    assert not second.unborn
    assert first.identity.previous == ()
    assert first.identity.previous_until == 0


def test_a_later_bundle_says_that_it_is_later_whatever_the_clock_does() -> None:
    """Who restores takes the newest one, and the clock may have been ahead when the one before was made."""
    first = make(REST, now=NOW + 86400)
    assert first.identity.made == NOW + 86400
    same = make(REST, first.files, now=NOW)
    assert same.identity == first.identity
    second = make(changed(REST, repository_id="id"), first.files, now=NOW)
    assert second.identity.made == NOW + 86401
    assert Identity.parse(str(second.files.identity)) == second.identity
    third = make(changed(REST, repository_id="id", key_id="key"), second.files, now=NOW + 90000)
    assert third.identity.made == NOW + 90000
    # So it does where the client was lost, and has the secrets out of that bundle.
    assert make(changed(REST, bundle_made=NOW + 86400), now=NOW).identity.made == NOW + 86401


def test_a_fingerprint_that_changes_twice_keeps_both_before() -> None:
    first = make(REST)
    second = make(changed(REST, repository_id="id"), first.files, now=NOW + 10)
    third = make(changed(REST, repository_id="id", key_id="key"), second.files, now=NOW + 20)
    before = [second.identity.fingerprint, first.identity.fingerprint]
    assert third.identity.accepted_fingerprints(NOW + 20) == [third.identity.fingerprint, *before]
    assert Identity.parse(str(third.files.identity)) == third.identity
    again = make(changed(REST, repository_id="id"), third.files, now=NOW + 20 + 3600)
    assert again.identity.accepted_fingerprints(NOW + 20 + 3600) == [
        again.identity.fingerprint,
        third.identity.fingerprint,
    ]


def test_a_rotation_that_is_cut_off_stops_no_backup() -> None:
    """Wherever that is: the bundle that the client knew before opens what there is."""
    first = make(REST)
    begun = make(changed(REST, rest_rotate=True), first.files, now=NOW + 10)
    assert begun.identity.rest_next is not None
    ended = make(
        changed(REST, rest_promote=True, rest_server_hash=begun.identity.rest_next.hash), begun.files, now=NOW + 20
    )
    assert_still_good(first, begun, ended)


def assert_still_good(first: Plan, *later: Plan) -> None:
    """A month later the first bundle is good enough, though there were others since."""
    for plan in later:
        assert plan.identity.fingerprint != first.identity.fingerprint
        assert first.identity.fingerprint in plan.identity.accepted_fingerprints(NOW + 30 * 86400)


def test_the_users_own_password_is_kept() -> None:
    done = make(changed(LOCAL, password="their own"))
    assert done.files.password == "their own"
    assert make(changed(LOCAL, password="their own"), done.files).files == done.files


def test_a_password_from_the_escrow_brings_a_wiped_client_back() -> None:
    wanted = changed(REST, known=True, password="old", rest_password="old-rest")
    assert errors(wanted) == []
    done = make(wanted)
    assert done.files.password == "old"
    assert done.identity.rest_current == RestPassword("old-rest", "$2b$12$" + "1" * 53)
    assert done.unborn  # the salt is new, so check mode cannot know the name of the bundle


def test_a_change_of_the_password_comes_back_from_the_escrow() -> None:
    """Whatever the client had done of it, what is there goes on with it."""
    wanted = changed(LOCAL, known=True, password="first", next_password="second")
    assert errors(wanted) == []
    done = make(wanted)
    assert passwords(done) == ("first", "second", None)
    assert done.bundle["next_password"] == "second"
    # A run that was cut off, and one more.
    left = Stored(password="first")
    assert passwords(make(wanted, left)) == ("first", "second", None)
    assert make(wanted, done.files).files == done.files
    # The client that was not lost after all had used it, and goes on with that.
    used = dataclasses.replace(done.files, password="second", password_next=None, password_old="first")
    assert errors(wanted, used) == []
    assert passwords(make(wanted, used)) == ("second", None, "first")
    another = dataclasses.replace(done.files, password_next="third")
    assert passwords(make(wanted, another)) == ("first", "third", None)
    assert "never overwritten" in errors(wanted, dataclasses.replace(used, password="third"))[0]


def passwords(plan: Plan) -> tuple[str | None, str | None, str | None]:
    """The current password, the next one and the one before."""
    return plan.files.password, plan.files.password_next, plan.files.password_old


def test_an_old_password_whose_key_may_be_left_comes_back_from_the_escrow() -> None:
    wanted = changed(LOCAL, known=True, password="second", old_password="first")
    done = make(wanted)
    assert passwords(done) == ("second", None, "first")
    assert "rotate=pending" in str(done.warning)
    assert "first" not in str(done.warning)
    assert make(wanted, done.files).files == done.files
    # A run that was cut off, and a client that was not lost: it knows best what has ended.
    assert passwords(make(wanted, Stored(password="second"))) == ("second", None, "first")
    there = dataclasses.replace(done.files, password_old=None)
    assert (make(wanted, there).files, make(wanted, there).warning) == (there, None)
    # borg has one key.
    assert passwords(make(changed(BORG, password="second", old_password="first"))) == ("second", None, None)


@pytest.mark.parametrize("name", ["next_password", "old_password"])
def test_passwords_of_the_escrow_that_no_file_can_hold_are_refused(name: str) -> None:
    (error,) = errors(changed(LOCAL, password="first", **{name: "second\nthird"}))
    assert f"`{name}`" in error
    assert "second" not in error


def test_a_changed_location_is_written() -> None:
    before = make(REST)
    after = make(changed(REST, location="rest:https://other:8000/web1--vault/"), before.files)
    assert str(after.files.repository).endswith("@other:8000/web1--vault/\n")
    assert after.files.password == before.files.password
    assert not after.made


def test_another_bcrypt_cost_makes_another_hash_of_the_same_password() -> None:
    before = make(changed(REST, rest_rotate=True), make(REST).files)
    hasher = Hasher(13)
    after = make(REST, before.files, hasher, cost=13)
    assert before.identity.rest_current is not None
    assert before.identity.rest_next is not None
    assert hasher.calls == [before.identity.rest_current.password, before.identity.rest_next.password]
    assert after.identity.rest_current == RestPassword(before.identity.rest_current.password, "$2b$13$" + "1" * 53)
    assert after.identity.fingerprint == before.identity.fingerprint
    assert not after.unborn


# --- what forbids to make new secrets


CURES = ("restore_identity", "another `backup_id`")


def assert_refused(found: list[str], *words: str) -> None:
    assert len(found) == 1, found
    for word in ("`vault`", *CURES, *words):
        assert word in found[0]


def test_no_new_secrets_where_the_controller_knows_some() -> None:
    assert_refused(errors(changed(REST, known=True)), "state directory", f"{DIRECTORY}/vault.password")
    assert errors(REST) == []


def test_no_new_password_where_the_client_itself_had_one() -> None:
    left = dataclasses.replace(make(REST).files, password=None)
    assert_refused(errors(REST, left), "vault.password is gone")
    assert_refused(errors(changed(REST, repository_id="id")), "vault.password is gone")


@pytest.mark.parametrize("identity", [None, Identity("ab").render()])
def test_no_new_rest_password_where_the_controller_knows_one(identity: str | None) -> None:
    left = dataclasses.replace(make(REST).files, identity=identity)
    assert_refused(errors(changed(REST, known=True), left), f"{DIRECTORY}/vault.identity")
    assert errors(changed(REST, known=True, rest_password="old"), left) == []
    assert errors(REST, left) == []
    assert_refused(errors(changed(REST, known=True, password="old")), "REST password")


def test_a_first_run_that_was_killed_is_finished() -> None:
    after = make(REST, Stored(password="half"))
    assert errors(REST, Stored(password="half")) == []
    assert after.files.password == "half"
    assert after.made


def test_known_and_complete_is_fine() -> None:
    files = make(REST).files
    assert errors(changed(REST, known=True), files) == []


def test_the_users_password_beside_an_identity_keeps_the_identity() -> None:
    wanted = changed(REST, known=True, password="own")
    files = make(wanted).files
    left = dataclasses.replace(files, password=None)
    assert errors(wanted, left) == []
    assert make(wanted, left).files == files


# --- what is never overwritten


def test_another_password_is_refused() -> None:
    files = make(REST).files
    found = errors(changed(REST, password="canary-other"), files)
    assert len(found) == 1
    assert "restic key add" in found[0]
    assert "canary" not in found[0]
    assert str(files.password) not in found[0]
    assert errors(changed(REST, password=files.password), files) == []


def test_another_rest_password_is_refused() -> None:
    files = make(REST).files
    found = errors(changed(REST, rest_password="canary-other"), files)
    assert len(found) == 1
    assert "`rest_password`" in found[0]
    assert "canary" not in found[0]
    same = Identity.parse(str(files.identity)).rest_current
    assert same is not None
    assert errors(changed(REST, rest_password=same.password), files) == []


def test_a_damaged_identity_is_named() -> None:
    found = errors(REST, dataclasses.replace(make(REST).files, identity="{"))
    assert found[0].startswith("repository `vault`: /etc/holdfast/secrets/vault.identity cannot be used: it is damaged")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"name": "a--b"}, "'a--b'"),
        ({"name": "a" * 29}, "28 at most"),
        ({"name": "../x"}, "no repository name"),
        ({"location": "rest:https://u:canary@h/x/"}, "holds a password"),
        ({"location": "rest:https://h"}, "rest:https://HOST"),
        ({"location": "rest:https://h/x/\nA=b"}, "control characters"),
        ({"location": ""}, "empty"),
        ({"rest_user": None}, "`rest_user` is missing"),
        ({"password": ""}, "`password` is empty"),
        ({"password": " canary"}, "spaces around"),
        ({"password": "canary\nx"}, "control"),
        ({"environment": {"1A": "canary"}}, "'1A'"),
        ({"environment": {"RESTIC_PASSWORD_COMMAND": "canary"}}, "RESTIC_PASSWORD_COMMAND"),
        ({"environment": {"A": "canary\nB=c"}}, "value of A"),
    ],
)
def test_bad_input_is_named_and_no_secret_shown(options: dict[str, Any], word: str) -> None:
    found = errors(changed(REST, **options))
    assert len(found) == 1
    assert word in found[0]
    assert "canary" not in found[0]


def test_several_bad_values_are_all_told() -> None:
    assert len(errors(changed(REST, rest_user=None, password=""))) == 2


# --- rotation


def rotated() -> Plan:
    return make(changed(REST, rest_rotate=True), make(REST).files)


def test_rotation_makes_a_next_password_once() -> None:
    first = make(REST)
    done = rotated()
    assert done.unborn
    assert not done.made
    assert done.identity.rest_next is not None
    assert "1" * 53 in done.identity.rest_next.hash
    again = make(changed(REST, rest_rotate=True), done.files)
    assert again.files == done.files
    assert first.identity.rest_next is None


def test_a_new_client_needs_no_rotation() -> None:
    assert make(changed(REST, rest_rotate=True)).identity.rest_next is None


def test_promotion_when_the_server_has_the_hash_of_next() -> None:
    before = make(changed(REST, rest_rotate=True), make(REST).files, Hasher(12))
    following = before.identity.rest_next
    assert following is not None
    wanted = changed(REST, rest_promote=True, rest_rotate=True, rest_server_hash=following.hash)
    # The two hashes of this test must differ, as real ones do.
    stored = dataclasses.replace(before.files, identity=before.identity.render().replace("1" * 53, "9" * 53, 1))
    current = Identity.parse(str(stored.identity)).rest_current
    assert current is not None
    assert current.hash != following.hash
    done = make(wanted, stored)
    assert done.identity.rest_current == following
    assert done.identity.rest_next is None
    assert following.password in str(done.files.repository)
    assert done.warning is None
    assert not done.unborn
    assert make(changed(wanted, rest_rotate=False), done.files).files == done.files


def test_no_promotion_while_the_server_has_the_current_hash() -> None:
    before = rotated()
    stored = dataclasses.replace(before.files, identity=before.identity.render().replace("1" * 53, "9" * 53, 1))
    current = Identity.parse(str(stored.identity)).rest_current
    assert current is not None
    done = make(changed(REST, rest_promote=True, rest_server_hash=current.hash), stored)
    assert done.files == stored
    assert done.warning is None
    assert make(changed(REST, rest_promote=True), stored).files == stored


def test_a_hash_of_neither_is_told() -> None:
    before = rotated()
    done = make(changed(REST, rest_promote=True, rest_server_hash=H["f"]), before.files)
    assert done.files == before.files
    assert done.warning is not None
    assert "`vault`" in done.warning


def test_check_mode_promotes_what_is_not_born_yet() -> None:
    before = make(REST)
    wanted = changed(REST, rest_promote=True, rest_server_hash=_secrets.UNBORN)
    done = make(wanted, before.files, lambda _password: _secrets.UNBORN)
    assert done.unborn
    assert done.identity.rest_current != before.identity.rest_current
    with_next = rotated()
    assert make(wanted, with_next.files).identity.rest_current == with_next.identity.rest_next


def test_an_identity_without_login_is_an_error() -> None:
    with pytest.raises(SecretsError, match="no REST user"):
        _secrets._rest_login(Identity("ab"))


def test_the_file_is_plain_json() -> None:
    assert json.loads(str(make(REST).files.identity))["rest"]["user"] == "web1--vault"


def test_under_another_name_a_client_keeps_the_secrets_that_it_has() -> None:
    """Another `backup_id` makes new ones of a host that lost them only; what is in use a rotation replaces."""
    before = make(REST)
    renamed = changed(REST, location="rest:https://vault1:8000/web9--vault/", rest_user="web9--vault")
    assert errors(renamed, before.files) == []
    after = make(renamed, before.files)
    assert after.files.password == before.files.password
    assert after.identity.rest_current == before.identity.rest_current
    assert (after.identity.rest_user, after.made) == ("web9--vault", False)
    key = make(OFFSITE).files
    assert make(changed(OFFSITE, location="rclone:holdfast:web9--offsite"), key).files.ssh_key == key.ssh_key
    # A host that lost them is refused under the old name only.
    assert errors(changed(REST, known=True)) != []
    assert make(renamed).files.password != before.files.password


# --- keys of SSH

OFFSITE = Wanted("offsite", "restic", "rclone", "rclone:holdfast:web1--offsite")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [_ssh.make_key(str(tmp_path_factory.mktemp("keys")), "x") for _number in range(3)]


def test_a_key_of_ssh_is_made_with_a_comment_that_says_whose_it_is() -> None:
    found = make(OFFSITE)
    assert (found.files.ssh_key, found.files.ssh_next) == ("key web1 offsite 2027-01-15", None)
    assert (found.made, found.unborn) == (True, True)
    assert found.bundle["ssh_key"] == found.files.ssh_key
    assert found.files.repository == "rclone:holdfast:web1--offsite\n"


def test_bundles_of_other_accesses_are_as_they_were() -> None:
    assert "ssh_key" not in make(REST).bundle
    assert make(LOCAL).files.ssh_key is None


def test_a_kept_key_is_kept(keys: list[str]) -> None:
    before = make(OFFSITE, Stored(password="p", ssh_key=keys[0])).files
    after = make(OFFSITE, before)
    assert after.files == before
    assert (after.files.ssh_key, after.made) == (keys[0], False)
    assert errors(OFFSITE, before) == []


def test_a_lost_key_is_not_made_anew_where_the_controller_knows_one(keys: list[str]) -> None:
    before = make(OFFSITE, Stored(password="p", ssh_key=keys[0])).files
    lost = dataclasses.replace(before, ssh_key=None)
    (error,) = errors(changed(OFFSITE, ssh_known=True), lost)
    assert "/etc/holdfast/secrets/offsite.ssh_key" in error
    assert "restore_identity" in error
    assert errors(changed(OFFSITE, ssh_known=True, ssh_key=keys[0]), lost) == []
    assert make(changed(OFFSITE, ssh_key=keys[0]), lost).files.ssh_key == keys[0]
    # Another access of the same name has none to lose.
    assert errors(changed(LOCAL, ssh_known=True)) == []


def test_another_key_is_refused(keys: list[str]) -> None:
    before = make(OFFSITE, Stored(password="p", ssh_key=keys[0])).files
    assert errors(changed(OFFSITE, ssh_key=keys[0]), before) == []
    (error,) = errors(changed(OFFSITE, ssh_key=keys[1]), before)
    assert "never overwritten" in error
    assert "PRIVATE" not in error
    (error,) = errors(changed(OFFSITE, ssh_key="geheim"), before)
    assert "no private ed25519 key" in error
    assert "geheim" not in error


@pytest.mark.parametrize("which", ["ssh_key", "ssh_next"])
def test_a_damaged_key_is_named(keys: list[str], which: str) -> None:
    before = make(OFFSITE, Stored(password="p", ssh_key=keys[0], ssh_next=keys[1])).files
    (error,) = errors(OFFSITE, dataclasses.replace(before, **{which: "geheim"}))
    assert f"offsite.{which} holds no private" in error
    assert "geheim" not in error
    assert errors(changed(OFFSITE, access="url", location="s3:h/b"), dataclasses.replace(before, **{which: "x"})) == []


def test_rotation_of_a_key_makes_the_next_and_then_uses_it(keys: list[str]) -> None:
    before = make(OFFSITE, Stored(password="p", ssh_key=keys[0])).files
    rotating = make(changed(OFFSITE, ssh_rotate=True), before)
    assert rotating.files.ssh_key == keys[0]
    assert rotating.files.ssh_next == "key web1 offsite 2027-01-15"
    assert rotating.bundle["ssh_next_key"] == rotating.files.ssh_next
    assert rotating.unborn is False
    both = dataclasses.replace(before, ssh_next=keys[1])
    assert make(changed(OFFSITE, ssh_rotate=True), both).files.ssh_next == keys[1]
    assert make(OFFSITE, both).files.ssh_next == keys[1]
    promoted = make(changed(OFFSITE, ssh_rotate=True, ssh_promote=True), both)
    assert (promoted.files.ssh_key, promoted.files.ssh_next) == (keys[1], None)
    assert promoted.bundle["ssh_next_key"] is None
    # One that was interrupted in between.
    same = dataclasses.replace(before, ssh_key=keys[1], ssh_next=keys[1])
    assert make(OFFSITE, same).files.ssh_next is None
    # Nothing to promote, and a key that was made just now needs no other.
    assert make(changed(OFFSITE, ssh_promote=True), before).files.ssh_key == keys[0]
    assert make(changed(OFFSITE, ssh_rotate=True)).files.ssh_next is None


def test_a_rotation_of_a_key_that_is_cut_off_stops_no_backup(keys: list[str]) -> None:
    first = make(OFFSITE, Stored(password="p", ssh_key=keys[0]))
    begun = make(OFFSITE, dataclasses.replace(first.files, ssh_next=keys[1]), now=NOW + 10)
    ended = make(changed(OFFSITE, ssh_promote=True), begun.files, now=NOW + 20)
    assert ended.files.ssh_key == keys[1]
    assert_still_good(first, begun, ended)


def test_public_halves(keys: list[str]) -> None:
    assert _secrets.public_half(None) is None
    assert _secrets.public_half(_secrets.UNBORN) == _secrets.UNBORN
    assert str(_secrets.public_half(keys[0])).startswith("ssh-ed25519 ")


# --- the key of a borg repository


BORG = Wanted("archive", "borg", "local", "/var/backups/archive", repository_id="1" * 64)


def test_the_bundle_holds_the_exported_key_and_no_older_one_will_do() -> None:
    before = make(changed(BORG, repository_id=None), now=NOW - 60)
    first = make(BORG, before.files)
    assert first.bundle["borg_key"] is None
    assert first.identity.accepted_fingerprints(NOW) == [first.identity.fingerprint, before.identity.fingerprint]
    stored = dataclasses.replace(first.files, borg_key=EXPORTED)
    second = make(BORG, stored, now=NOW + 60)
    assert second.bundle["borg_key"] == EXPORTED
    assert second.files.borg_key == EXPORTED
    assert second.identity.borg_key == KEY
    # Those without the key are not good enough for an hour, as they are where a password of a server changes.
    assert second.identity.accepted_fingerprints(NOW + 60) == [second.identity.fingerprint]
    assert first.identity.fingerprint != second.identity.fingerprint
    third = make(BORG, second.files, now=NOW + 120)
    assert third.files == second.files
    assert Identity.parse(second.identity.render()).borg_key == KEY
    assert "borg_key" not in make(LOCAL).bundle
    assert "borg_key" not in make(LOCAL).identity.render()


def test_the_exported_key_comes_back_from_the_escrow_and_replaces_none() -> None:
    assert make(changed(BORG, borg_key=EXPORTED)).files.borg_key == EXPORTED
    other = EXPORTED.replace("hqlh", "AAAA")
    assert make(changed(BORG, borg_key=other), Stored(borg_key=EXPORTED)).files.borg_key == EXPORTED
    assert "`borg_key` is not what `borg key export` prints" in errors(changed(BORG, borg_key="junk"))[0]
    problems = errors(changed(BORG, repository_id=None), Stored(password="x", borg_key="junk"))
    assert "archive.borg_key holds no exported key of borg" in problems[0]


# --- the password of the repository


def test_a_next_password_is_in_the_bundle_before_it_is_used() -> None:
    before = make(LOCAL)
    rotating = changed(LOCAL, password_rotate=True)
    assert make(rotating).files.password_next is None, "what was made just now needs no other"
    plan = make(rotating, before.files)
    following = plan.files.password_next
    assert following not in (None, plan.files.password)
    assert plan.files.password == before.files.password
    assert (plan.bundle["password"], plan.bundle["next_password"]) == (before.files.password, following)
    # It stays as it is, with and without being asked for.
    assert make(rotating, plan.files).files == make(LOCAL, plan.files).files == plan.files
    # The bundle from before opens what there is, however late the next run comes.
    assert before.identity.fingerprint in plan.identity.accepted_fingerprints(NOW + 100 * 24 * 3600)


def test_one_change_is_ended_before_the_next_begins() -> None:
    rotating = changed(LOCAL, password_rotate=True)
    used = dataclasses.replace(make(LOCAL).files, password="second", password_old="first")
    plan = make(rotating, used)
    assert (plan.files.password_next, plan.files.password_old) == (None, "first")
    assert "next_password" not in plan.bundle
    assert "rotate again" in str(plan.warning)
    ended = dataclasses.replace(used, password_old=None)
    assert make(rotating, ended).files.password_next is not None


def test_what_a_change_that_was_cut_off_left_is_cleared() -> None:
    left = dataclasses.replace(make(LOCAL).files, password="second", password_next="second", password_old="first")
    assert (make(LOCAL, left).files.password_next, make(LOCAL, left).files.password_old) == (None, "first")
    left = dataclasses.replace(left, password="first")
    assert (make(LOCAL, left).files.password_next, make(LOCAL, left).files.password_old) == ("second", None)


def test_a_password_of_the_inventory_is_not_rotated() -> None:
    given = changed(LOCAL, password="of the user")
    stored = make(given).files
    plan = make(changed(given, password_rotate=True), stored)
    assert plan.files == stored
    assert "`password` is in the inventory" in str(plan.warning)
    assert "of the user" not in str(plan.warning)
