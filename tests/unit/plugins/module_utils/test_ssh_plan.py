# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets which key line, who keeps it, who loses it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _ssh_accounts as logic
from ansible_collections.holdfast.backup.plugins.module_utils._public_key import fingerprint
from ansible_collections.holdfast.backup.plugins.module_utils._ssh_accounts import (
    PLACEHOLDER,
    Current,
    Known,
    Manifest,
    Outcome,
    Policy,
    System,
)

SERVE = "/usr/local/libexec/holdfast/serve"
HOME = "/var/lib/holdfast/home"
POLICY = Policy("f1", SERVE, HOME)
NOBODY = Current({}, {}, {})


def blob(letter: str) -> str:
    return base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + letter.encode() * 32).decode()


def public(letter: str) -> str:
    return f"ssh-ed25519 {blob(letter)} whatever the client says"


def account(name: str, *keys: dict[str, Any], groups: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": f"bk-{name}", "backup_id": name, "groups": list(groups), "keys": list(keys)}


def key(*letters: str, repository: str = "vault", sources: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"repository": repository, "public_keys": [public(each) for each in letters], "from": list(sources)}


def line(name: str, letter: str, repository: str = "vault", options: str = "") -> str:
    return f'restrict,command="{SERVE} {repository}"{options} ssh-ed25519 {blob(letter)} {name} {repository}\n'


def system(name: str, uid: int = 990, **more: Any) -> System:
    return replace(System(uid, f"holdfast {name}", HOME, "/bin/sh", "*", ""), **more)


def prints(letters: str) -> tuple[str, ...]:
    return tuple(fingerprint(blob(each)) for each in letters)


def known(name: str, locked: bool = False, retired: str = "", **keys: str) -> Known:
    served = {each: prints(letters) for each, letters in keys.items()}
    return Known(name, served, locked, retired=prints(retired))


def plan(
    *items: dict[str, Any],
    current: Current = NOBODY,
    manifest: dict[str, Known] | None = None,
    policy: Policy = POLICY,
) -> Outcome:
    before = None if manifest is None else Manifest("f1", {f"bk-{each.backup_id}": each for each in manifest.values()})
    return logic.plan_accounts(logic.parse_accounts(items), current, before, policy)


def told(outcome: Outcome) -> dict[str, Any]:
    return {key: value for key, value in outcome.report().items() if value and key != "served"}


def here(files: dict[str, str], groups: dict[str, frozenset[str]] | None = None, **more: System) -> Current:
    accounts = {f"bk-{name}": system(name, 900 + number) for number, name in enumerate(files)}
    accounts.update({f"bk-{name}": each for name, each in more.items()})
    return Current(accounts, {f"bk-{name}": text for name, text in files.items()}, groups or {})


def test_a_new_client() -> None:
    outcome = plan(account("web1", key("a", "b", sources=("192.0.2.7", "2001:DB8::/64")), groups=("hfr-s3",)))
    options = ',from="192.0.2.7,2001:db8::/64"'
    assert outcome.files == {"bk-web1": line("web1", "a", options=options) + line("web1", "b", options=options)}
    assert told(outcome) == {
        "created": ["bk-web1"], "created_keys": ["bk-web1 vault"], "groups_created": ["hfr-s3"], "groups_changed": ["hfr-s3"],
    }  # fmt: skip
    assert outcome.memberships == {"hfr-s3": frozenset({"bk-web1"})}
    assert outcome.served() == {"bk-web1": {"vault": [fingerprint(blob("a")), fingerprint(blob("b"))]}}
    assert not outcome.end


def test_converged() -> None:
    current = here({"web1": line("web1", "a")}, {"hfr-s3": frozenset({"bk-web1"})})
    outcome = plan(
        account("web1", key("a"), groups=("hfr-s3",)), current=current, manifest={"": known("web1", vault="a")}
    )
    assert told(outcome) == {}
    assert not outcome.end
    assert logic.make_diff(current, outcome) == []


def test_a_line_says_since_when_its_key_is_served() -> None:
    """And goes on to say it, whatever else becomes of it; one that was written without it stays as it is."""
    today = replace(POLICY, today="2026-11-02")
    old = line("web1", "a").replace("\n", " 2026-11-01\n")
    new = line("web1", "b").replace("\n", " 2026-11-02\n")
    assert plan(account("web1", key("b")), policy=today).files == {"bk-web1": new}
    for before in (old, line("web1", "a")):
        given: dict[str, Any] = {
            "current": here({"web1": before}),
            "manifest": {"": known("web1", vault="a")},
            "policy": today,
        }
        same = plan(account("web1", key("a")), **given)
        assert (same.files, told(same), same.end) == ({"bk-web1": before}, {}, set())
        assert plan(account("web1", key("a", "b")), **given).files == {"bk-web1": before + new}
        narrower = plan(account("web1", key("a", sources=("192.0.2.7",))), **given)
        assert narrower.files == {"bk-web1": before.replace('vault" ', 'vault",from="192.0.2.7" ')}
    # What somebody wrote there by hand is none.
    for odd in ("2026-11-01 x", "2026-11-1", "yesterday"):
        given["current"] = here({"web1": line("web1", "a").replace("\n", f" {odd}\n")})
        outcome = plan(account("web1", key("a")), **given)
        assert told(outcome)["foreign"] == ["bk-web1 line 1"]
        assert outcome.files == {"bk-web1": line("web1", "a").replace("\n", " 2026-11-02\n")}


def test_another_key_ends_the_sessions_of_the_old_one() -> None:
    outcome = plan(
        account("web1", key("b")), current=here({"web1": line("web1", "a")}), manifest={"": known("web1", vault="a")}
    )
    assert told(outcome) == {"changed_keys": ["bk-web1 vault"]}
    assert outcome.end == {"bk-web1"}
    (difference,) = logic.make_diff(here({"web1": line("web1", "a")}), outcome)
    assert blob("a") in difference["before"]
    assert blob("b") in difference["after"]


def test_a_second_key_ends_nothing() -> None:
    outcome = plan(
        account("web1", key("a", "b")),
        current=here({"web1": line("web1", "a")}),
        manifest={"": known("web1", vault="a")},
    )
    assert told(outcome) == {"changed_keys": ["bk-web1 vault"]}
    assert not outcome.end


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ((), ("192.0.2.7",), True),
        (("192.0.2.7",), (), False),
        (("192.0.2.7", "2001:db8::1"), ("192.0.2.0/24", "2001:db8::/32", "198.51.100.1"), False),
        (("192.0.2.0/24",), ("192.0.2.0/25",), True),
        (("192.0.2.7", "2001:db8::1"), ("192.0.2.7",), True),
        ((), ("0.0.0.0/0", "::/0"), False),
        (("1:2:3",), ("192.0.2.7",), True),  # written by hand
    ],
)
def test_fewer_addresses_end_the_sessions(before: tuple[str, ...], after: tuple[str, ...], ends: bool) -> None:
    """A connection may be open from where nobody may come any more."""
    options = f',from="{",".join(before)}"' if before else ""
    outcome = plan(
        account("web1", key("a", sources=after)),
        current=here({"web1": line("web1", "a", options=options)}),
        manifest={"": known("web1", vault="a")},
    )
    assert told(outcome) == {"changed_keys": ["bk-web1 vault"]}
    assert outcome.end == ({"bk-web1"} if ends else set())


def test_a_key_for_another_repository_ends_the_sessions() -> None:
    """Of the one that it opened before, though it is still good for something."""
    outcome = plan(
        account("web1", key("a", repository="second")),
        current=here({"web1": line("web1", "a")}),
        manifest={"": known("web1", vault="a")},
    )
    assert outcome.end == {"bk-web1"}


def test_a_repository_that_is_gone() -> None:
    before = line("web1", "a") + line("web1", "b", "second")
    outcome = plan(
        account("web1", key("a")), current=here({"web1": before}), manifest={"": known("web1", vault="a", second="b")}
    )
    assert told(outcome) == {"revoked_keys": ["bk-web1 second"]}
    assert outcome.files["bk-web1"] == line("web1", "a")
    assert outcome.end == {"bk-web1"}


def test_a_client_that_is_gone_is_locked_and_stays_known() -> None:
    manifest = {"": known("web1", vault="a")}
    outcome = plan(current=here({"web1": line("web1", "a")}), manifest=manifest)
    assert told(outcome) == {"revoked": ["bk-web1"], "revoked_keys": ["bk-web1 vault"], "locked": ["bk-web1"]}
    assert outcome.end == {"bk-web1"}
    assert outcome.files == {}
    assert outcome.manifest == {"bk-web1": known("web1", locked=True, retired="a")}
    assert outcome.served() == {}
    gone = Current({"bk-web1": system("web1", password="!*", expires="1")}, {}, {})
    again = plan(current=gone, manifest={"": known("web1", locked=True)})
    assert told(again) == {}
    assert again.end == {"bk-web1"}  # what still runs as it is ended in every run
    back = plan(account("web1", key("a")), current=gone, manifest={"": known("web1", locked=True)})
    assert told(back) == {"unlocked": ["bk-web1"], "created_keys": ["bk-web1 vault"]}
    planted = plan(
        current=Current(gone.system, {"bk-web1": line("web1", "z")}, {}), manifest={"": known("web1", locked=True)}
    )
    assert told(planted) == {"foreign": ["bk-web1"]}


def test_too_many_revocations_are_an_error_before_anything() -> None:
    current = here({"web1": line("web1", "a"), "web2": line("web2", "b")})
    manifest = {"1": known("web1", vault="a"), "2": known("web2", vault="b")}
    with pytest.raises(ValueError, match=r"2 hosts would lose access \(web1, web2\)"):
        plan(current=current, manifest=manifest, policy=replace(POLICY, revoke_max=1))
    plan(current=current, manifest=manifest, policy=replace(POLICY, revoke_max=2))
    with pytest.raises(ValueError, match="web1"):  # the manifest is lost: what is there may be ours
        plan(current=current, policy=replace(POLICY, revoke_max=0))


REVOKE = replace(POLICY, revoke_only=True)


def test_only_revoked_nobody_gets_anything() -> None:
    """A client is gone, a key and a repository are, too; and a client, a key, a repository and addresses are new."""
    files = {
        "gone1": line("gone1", "g"),
        "web1": line("web1", "a") + line("web1", "b") + line("web1", "c", "second"),
        "web2": line("web2", "d", options=',from="192.0.2.1"'),
        "back1": "",
    }
    current = here(
        files, {"hfr-s3": frozenset({"bk-gone1", "bk-web1"})}, back1=system("back1", password="!*", expires="1")
    )
    kept = replace(known("web2", vault="d"), definitions={"vault": "sftp"})
    manifest = {
        "gone": known("gone1", vault="g"),
        "1": known("web1", vault="ab", second="c"),
        "2": kept,
        "back": known("back1", locked=True),
    }  # fmt: skip
    wider = {**key("d", sources=("192.0.2.0/24",)), "definition": "append-only"}
    wanted = [
        account("web1", key("b", "e"), key("f", repository="third")),
        account("web2", wider, groups=("hfr-s3", "hfr-new")),
        account("web3", key("h")),
        account("back1", key("i")),
    ]
    outcome = plan(*wanted, current=current, manifest=manifest, policy=REVOKE)
    assert told(outcome) == {
        "revoked": ["bk-gone1"], "revoked_keys": ["bk-gone1 vault", "bk-web1 second"], "locked": ["bk-gone1"],
        "changed_keys": ["bk-web1 vault"], "groups_changed": ["hfr-s3"],
    }  # fmt: skip
    assert {name: text for name, text in outcome.files.items() if text} == {
        "bk-web1": line("web1", "b"), "bk-web2": files["web2"],
    }  # fmt: skip
    assert outcome.memberships == {"hfr-s3": frozenset({"bk-web1"})}
    assert outcome.end == {"bk-gone1", "bk-web1"}
    # What web2's sessions may do is as it was, and the next whole run has to know.
    assert outcome.manifest == {
        "bk-gone1": known("gone1", locked=True, retired="g"),
        "bk-web1": known("web1", vault="b", retired="ac"),
        "bk-web2": kept,
        "bk-back1": known("back1", locked=True),
    }
    assert outcome.served() == {
        "bk-web1": {"vault": [fingerprint(blob("b"))]}, "bk-web2": {"vault": [fingerprint(blob("d"))]},
    }  # fmt: skip
    with pytest.raises(ValueError, match="2 hosts would lose access"):
        plan(*wanted, current=current, manifest=manifest, policy=replace(REVOKE, revoke_max=1))


def test_only_revoked_what_does_not_belong_there_goes() -> None:
    own = line("web1", "a")
    current = here({"web1": own + own + line("web1", "z") + own.replace("restrict,", ""), "nobody": "x\n"})
    outcome = plan(account("web1", key("a")), current=current, manifest={"": known("web1", vault="a")}, policy=REVOKE)
    assert outcome.files == {"bk-web1": own}
    assert outcome.foreign == ["bk-web1 line 2", "bk-web1 line 3", "bk-web1 line 4", "bk-nobody"]
    assert outcome.end == {"bk-web1", "bk-nobody"}
    # Edited, it is not written anew.
    current = here({"web1": own.replace("restrict,", "")})
    outcome = plan(account("web1", key("a")), current=current, manifest={"": known("web1", vault="a")}, policy=REVOKE)
    assert (outcome.files, outcome.end) == ({"bk-web1": ""}, {"bk-web1"})
    assert outcome.manifest == {"bk-web1": Known("web1")}


def test_only_revoked_where_nothing_is_lost_nothing_happens() -> None:
    current = here({"web1": line("web1", "a")}, {"hfr-s3": frozenset({"bk-web1"})})
    for wanted in (key("a"), key(), key("not one")):
        for manifest in ({"": known("web1", vault="a")}, None):
            outcome = plan(account("web1", wanted), current=current, manifest=manifest, policy=REVOKE)
            assert {name: value for name, value in told(outcome).items() if name != "refused"} == {}
            assert outcome.files == {"bk-web1": line("web1", "a")}
            assert outcome.manifest == {"bk-web1": known("web1", vault="a")}
    fresh = plan(account("web1", key("a"), groups=("hfr-s3",)), manifest=None, policy=REVOKE)
    assert (told(fresh), fresh.files, fresh.manifest) == ({}, {"bk-web1": ""}, {})


RIGHTS = {"kind": "borg", "path": "/srv/a", "quota": "200G", "append_only": True, "confine": None}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"quota": "1T"}),
        ({}, {"quota": "200001M"}),
        ({"quota": "99999"}, {"quota": "100K"}),
        ({}, {"quota": None}),
        ({}, {"append_only": False}),
        ({"confine": "required"}, {"confine": "if_possible"}),
        # What rclone is told besides gives nobody anything, and is recorded no more.
        ({"arguments": ["--bwlimit=1M"]}, {}),
    ],
)
def test_sessions_outlive_what_lets_them_do_more(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A quota is raised because a backup does not fit: it must not end the others. Back again, they end."""

    def planned(old: dict[str, Any], new: dict[str, Any]) -> Outcome:
        texts = [json.dumps({**RIGHTS, **each}, sort_keys=True) for each in (old, new)]
        served = replace(known("web1", vault="a"), definitions={"vault": texts[0]})
        wanted = account("web1", {**key("a"), "definition": texts[1]})
        outcome = plan(wanted, current=here({"web1": line("web1", "a")}), manifest={"": served})
        # Until they have ended, what they may do stays on record.
        assert outcome.manifest["bk-web1"].definitions == {"vault": texts[bool(not outcome.sessions_pending)]}
        return outcome

    assert planned(before, after).sessions_pending == []
    if "arguments" not in before:
        assert planned(after, before).sessions_pending == ["bk-web1"]


@pytest.mark.parametrize(
    "after",
    [
        {"path": "/srv/b"},
        {"kind": "rclone"},
        {"quota": "1.5T"},
        {"quota": "1T", "path": "/srv/b"},
        {"remote": "s3:b/web1--vault"},
        {"append_only": None},
        [],
        "any words",
    ],
)
def test_sessions_end_with_what_is_no_more(after: Any) -> None:
    texts = [json.dumps(each) for each in (RIGHTS, {**RIGHTS, **after} if isinstance(after, dict) else after)]
    for old, new in (texts, reversed(texts)):
        served = replace(known("web1", vault="a"), definitions={"vault": old})
        wanted = account("web1", {**key("a"), "definition": new})
        outcome = plan(wanted, current=here({"web1": line("web1", "a")}), manifest={"": served})
        assert outcome.sessions_pending == (["bk-web1"] if new != old else []), (old, new)


def test_without_a_key_the_server_keeps_its_own() -> None:
    current = here({"web1": line("web1", "a", options=',from="192.0.2.1"')})
    for manifest in ({"": known("web1", vault="a")}, None):
        outcome = plan(account("web1", key()), current=current, manifest=manifest)
        assert outcome.kept == ["bk-web1 vault"]
        assert outcome.files["bk-web1"] == line("web1", "a")
    never = plan(
        account("web1", key()), current=here({"web1": line("web1", "z")}), manifest={"": known("web1", vault="a")}
    )
    assert never.missing == ["bk-web1 vault"]
    assert never.foreign == ["bk-web1 line 1"]
    assert never.files == {"bk-web1": ""}


def stored(*letters: str) -> dict[str, Any]:
    """What a state directory remembers of a client that this run did not hear."""
    return {**key(*letters), "heard": False}


def replaced(letters: str, was: str) -> dict[str, Known]:
    return {"": known("web1", vault=letters, retired=was)}


@pytest.mark.parametrize("policy", [POLICY, REVOKE])
def test_what_was_replaced_does_not_come_back_by_an_old_state_directory(policy: Policy) -> None:
    """Who stole a key is let in no more, and the client is not kept out."""
    current = here({"web1": line("web1", "b")})
    first = plan(
        account("web1", key("b")), current=here({"web1": line("web1", "a")}), manifest={"": known("web1", vault="a")}
    )
    manifest = {"": first.manifest["bk-web1"]}
    assert manifest == replaced("b", "a")
    for old in (stored("a"), stored("a", "b")):
        outcome = plan(account("web1", old), current=current, manifest=manifest, policy=policy)
        assert (outcome.files, outcome.end) == ({"bk-web1": line("web1", "b")}, set())
        assert outcome.manifest == {"bk-web1": manifest[""]}
        assert outcome.served() == {"bk-web1": {"vault": [fingerprint(blob("b"))]}}
    outcome = plan(account("web1", stored("a")), current=current, manifest=manifest)
    assert told(outcome) == {"kept": ["bk-web1 vault"]}
    (warning,) = outcome.warnings
    assert "bk-web1 vault: the state directory has a public key that this server replaced or revoked" in warning
    assert "the lines of bk-web1 vault that this server has stay" in warning
    # While a key is changed, what an older state directory knows is there, and nothing is taken from it.
    both = here({"web1": line("web1", "b") + line("web1", "c")})
    outcome = plan(account("web1", stored("a")), current=both, manifest=replaced("bc", "a"))
    assert outcome.files == {"bk-web1": line("web1", "b") + line("web1", "c")}


def test_what_is_not_ours_does_not_stay_by_an_old_state_directory() -> None:
    for odd in (line("web1", "z"), line("web1", "a"), line("web1", "b", options=",agent-forwarding")):
        outcome = plan(
            account("web1", stored("a")), current=here({"web1": odd + line("web1", "y")}), manifest=replaced("b", "a")
        )
        assert outcome.files == {"bk-web1": ""}, odd
        assert outcome.missing == ["bk-web1 vault"]
        assert outcome.foreign == ["bk-web1 line 1", "bk-web1 line 2"]
        assert "bk-web1 vault is not served" in " ".join(outcome.warnings)


def test_what_was_revoked_does_not_come_back_by_an_old_state_directory() -> None:
    current = here({"web1": line("web1", "a")})
    for policy in (POLICY, REVOKE):
        gone = plan(current=current, manifest={"": known("web1", vault="a")}, policy=policy)
        assert gone.manifest["bk-web1"].retired == prints("a")
        locked = Current({"bk-web1": system("web1", password="!*", expires="1")}, {}, {})
        outcome = plan(account("web1", stored("a")), current=locked, manifest={"": gone.manifest["bk-web1"]})
        assert (outcome.files, outcome.missing) == ({"bk-web1": ""}, ["bk-web1 vault"])
        # Of somebody else's client, whom no run hears, a next key brings it back.
        outcome = plan(account("web1", stored("a", "n")), current=locked, manifest={"": gone.manifest["bk-web1"]})
        assert outcome.files == {"bk-web1": line("web1", "n")}
        # What it says itself counts, and is none any more that was replaced.
        outcome = plan(account("web1", key("a")), current=locked, manifest={"": gone.manifest["bk-web1"]})
        assert outcome.files == {"bk-web1": line("web1", "a")}
        assert outcome.manifest["bk-web1"].retired == ()


def test_what_nothing_is_remembered_of_is_not_retired_by_an_old_state_directory() -> None:
    """The version before did not say what was replaced: the newest state directory has to bring the client back."""
    before = logic.render_manifest(Manifest("f1", {"bk-web1": known("web1", vault="b")}))
    del before["accounts"]["bk-web1"]["retired"]
    parsed = logic.parse_manifest(before, "m")
    assert parsed is not None
    manifest, current = dict(parsed.accounts), here({"web1": line("web1", "b")})
    old = plan(account("web1", stored("a")), current=current, manifest=manifest)
    assert (old.files, old.manifest["bk-web1"].retired) == ({"bk-web1": line("web1", "a")}, ())
    # Also where the run ended before it was done.
    union = dict(logic.unite(parsed, old.manifest, "f1").accounts)
    again = plan(account("web1", stored("a")), current=current, manifest=union)
    assert again.manifest["bk-web1"].retired == ()
    newest = plan(account("web1", stored("b")), current=here({"web1": line("web1", "a")}), manifest=dict(old.manifest))
    assert newest.files == {"bk-web1": line("web1", "b")}
    assert newest.manifest["bk-web1"].retired == prints("a")
    # What it says itself replaces what was there, and so does who takes its access.
    for items in ([account("web1", key("c"))], []):
        assert plan(*items, current=current, manifest=manifest).manifest["bk-web1"].retired == prints("b")


def test_what_was_only_taken_away_by_hand_was_not_replaced() -> None:
    """A run that could not serve the client anything retires nothing, so that the next one can."""
    edited = here({"web1": line("web1", "b").replace("restrict,", "")})
    for policy, given in ((POLICY, stored("a")), (POLICY, stored()), (REVOKE, stored("b"))):
        outcome = plan(account("web1", given), current=edited, manifest=replaced("b", "a"), policy=policy)
        assert outcome.files == {"bk-web1": ""}
        assert outcome.manifest["bk-web1"].retired == prints("a")
        again = plan(
            account("web1", stored("b")), current=here({"web1": ""}), manifest={"": outcome.manifest["bk-web1"]}
        )
        assert again.files == {"bk-web1": line("web1", "b")}


def test_a_state_directory_of_today_is_gone_by() -> None:
    current = here({"web1": line("web1", "b")})
    for letters in ("b", "bc", "c"):
        outcome = plan(account("web1", stored(*letters)), current=current, manifest=replaced("b", "a"))
        assert outcome.files == {"bk-web1": "".join(line("web1", each) for each in letters)}
        assert (outcome.kept, outcome.warnings) == ([], [])


def test_a_bad_key_is_refused_for_its_client_alone() -> None:
    bad = {"repository": "vault", "public_keys": [public("b") + "\n" + public("c")], "from": []}
    outcome = plan(
        account("web1", bad), account("web2", key("d")), account("web3", bad),
        current=here({"web1": line("web1", "a")}), manifest={"": known("web1", vault="a")},
    )  # fmt: skip
    assert set(outcome.refused) == {"bk-web1", "bk-web3"}
    assert "more than one line" in outcome.refused["bk-web1"][0]
    assert outcome.files == {"bk-web1": line("web1", "a"), "bk-web2": line("web2", "d"), "bk-web3": ""}
    assert (outcome.kept, outcome.missing) == (["bk-web1 vault"], ["bk-web3 vault"])


def test_one_good_and_one_bad_key_keep_what_is_there() -> None:
    mixed = {"repository": "vault", "public_keys": [public("a"), "junk"], "from": []}
    outcome = plan(
        account("web1", mixed), current=here({"web1": line("web1", "a")}), manifest={"": known("web1", vault="a")}
    )
    assert outcome.files["bk-web1"] == line("web1", "a")
    assert list(outcome.refused) == ["bk-web1"]
    # Nor is the good one taken alone: which of them is in use is not known.
    mixed["public_keys"] = [public("b"), "junk"]
    outcome = plan(
        account("web1", mixed), current=here({"web1": line("web1", "a")}), manifest={"": known("web1", vault="a")}
    )
    assert outcome.files["bk-web1"] == line("web1", "a")
    assert (outcome.kept, list(outcome.refused), outcome.end) == (["bk-web1 vault"], ["bk-web1"], set())
    # A run was killed before it took the old key away: the bad one is what has to be said.
    outcome = plan(
        account("web1", {**mixed, "heard": False}),
        current=here({"web1": line("web1", "a")}),
        manifest=replaced("ab", "a"),
    )
    assert outcome.files["bk-web1"] == line("web1", "a")
    assert (outcome.kept, outcome.stale, list(outcome.refused)) == (["bk-web1 vault"], [], ["bk-web1"])


def test_a_key_whose_line_is_gone_already_may_still_have_sessions() -> None:
    current = here({"web1": line("web1", "a")})
    for served, ends in (("ab", {"bk-web1"}), ("a", set())):
        outcome = plan(account("web1", key("a")), current=current, manifest={"": known("web1", vault=served)})
        assert (outcome.end, told(outcome)) == (ends, {})


@pytest.mark.parametrize("half", [{"password": "!*"}, {"expires": "1"}, {}])
def test_half_a_lock_is_none(half: dict[str, Any]) -> None:
    there = Current({"bk-web1": system("web1", **half)}, {}, {})
    assert plan(current=there, manifest={"": known("web1", locked=True)}).locked == ["bk-web1"]


def test_another_home_ends_no_session_where_the_definitions_are_in_force() -> None:
    """What its definition takes away does: the run that moved it has ended what began before."""
    there = Current({"bk-web1": system("web1", home="/root")}, {"bk-web1": line("web1", "a")}, {})
    before = replace(known("web1", vault="a"), definitions={"vault": "before"})
    asked = account("web1", {**key("a"), "definition": "after"})
    outcome = plan(asked, current=there, manifest={"": before})
    assert (outcome.end, outcome.manifest["bk-web1"].definitions) == ({"bk-web1"}, {"vault": "before"})
    in_force = replace(POLICY, in_force=True)
    outcome = plan(asked, current=there, manifest={"": before}, policy=in_force)
    assert (outcome.end, outcome.manifest["bk-web1"].definitions) == ({"bk-web1"}, {"vault": "after"})
    same = replace(before, definitions={"vault": "after"})
    assert plan(asked, current=there, manifest={"": same}).end == {"bk-web1"}
    assert plan(asked, current=there, manifest={"": same}, policy=in_force).end == set()


@pytest.mark.parametrize(
    ("added", "number"),
    [
        (f"ssh-ed25519 {blob('a')} a second line without options\n", 2),
        (line("web1", "a"), 2),
        (f"ssh-ed25519 {blob('z')} somebody\n", 2),
        (f"# {blob('a')}\n", 2),
        ("# a comment\n", 2),
        (f'environment="X=1" ssh-ed25519 {blob("z")}\n', 2),
    ],
)
def test_lines_that_do_not_belong_there(added: str, number: int) -> None:
    current = here({"web1": line("web1", "a") + added})
    outcome = plan(account("web1", key("a")), current=current, manifest={"": known("web1", vault="a")})
    assert outcome.foreign == [f"bk-web1 line {number}"]
    assert outcome.files["bk-web1"] == line("web1", "a")
    assert outcome.end == {"bk-web1"}


def test_a_line_without_its_restriction_is_written_anew() -> None:
    current = here({"web1": f'command="{SERVE} vault" ssh-ed25519 {blob("a")} web1 vault\n\n'})
    outcome = plan(account("web1", key("a")), current=current, manifest={"": known("web1", vault="a")})
    assert told(outcome) == {"foreign": ["bk-web1 line 1"], "changed_keys": ["bk-web1 vault"]}
    assert outcome.end == {"bk-web1"}


def test_a_key_file_of_nobody_goes() -> None:
    outcome = plan(account("web1", key("a")), current=here({"other": line("other", "b")}), manifest={"": known("web1")})
    assert outcome.foreign == ["bk-other"]
    assert outcome.end == {"bk-other"}


@pytest.mark.parametrize("manifest", [{}, None])
@pytest.mark.parametrize("revoke_only", [False, True])
def test_a_key_file_of_somebody_else_s_account_stays(manifest: dict[str, Known] | None, revoke_only: bool) -> None:
    olga = here({"olga": "ssh-ed25519 hers\n"}, olga=system("olga", comment="Olga Other"))
    policy = replace(POLICY, revoke_only=revoke_only)
    for declared in ((), (account("olga", key("a")),)):
        outcome = plan(*declared, current=olga, manifest=manifest, policy=policy)
        assert (outcome.end, outcome.foreign, outcome.theirs, outcome.manifest) == (set(), [], ["bk-olga"], {})
        assert "bk-olga" not in outcome.files
        assert logic.make_diff(olga, outcome) == []
        (said,) = outcome.warnings
        assert said.startswith("bk-olga: is an account of somebody else, so its key file stays")
    # What was ours once is not theirs because of another comment.
    ours = plan(current=olga, manifest={"": known("olga", vault="a")}, policy=policy)
    assert (ours.theirs, ours.revoked) == ([], ["bk-olga"])


def test_an_account_of_somebody_else_is_never_taken_over() -> None:
    for there in (system("web1", comment="Will E. B."), system("web1", uid=0)):
        current = Current({"bk-web1": there}, {"bk-web1": line("web1", "z")}, {})
        outcome = plan(
            account("web1", key("a")), account("web2", key("b")), current=current, manifest={"": known("web1")}
        )
        assert "not ours" in outcome.refused["bk-web1"][0]
        assert list(outcome.files) == ["bk-web2"]
        assert outcome.created == ["bk-web2"]
        assert not outcome.end
        assert outcome.manifest["bk-web1"] == known("web1")
        assert not plan(current=current, manifest={"": known("web1", vault="a")}).end


def test_an_account_that_was_changed_is_corrected() -> None:
    wrong: list[dict[str, Any]] = [{"home": "/root"}, {"shell": "/bin/bash"}, {"password": "$y$hash"}]
    for change in wrong:
        outcome = plan(account("web1"), current=Current({"bk-web1": replace(system("web1"), **change)}, {}, {}))
        assert told(outcome) == {"corrected": ["bk-web1"]}
    locked: list[dict[str, Any]] = [{"password": "!*"}, {"expires": "1"}]
    for change in locked:
        outcome = plan(account("web1"), current=Current({"bk-web1": replace(system("web1"), **change)}, {}, {}))
        assert told(outcome) == {"unlocked": ["bk-web1"]}
        assert logic.make_diff(NOBODY, outcome) == [{"prepared": "accounts unlocked: bk-web1\n"}]


def test_a_key_opens_one_repository_and_who_had_it_first_keeps_it() -> None:
    current = here({"web1": line("web1", "a")})
    manifest = {"": known("web1", vault="a")}
    outcome = plan(account("thief", key("a")), account("web1", key("a")), current=current, manifest=manifest)
    assert outcome.files == {"bk-thief": "", "bk-web1": line("web1", "a")}
    assert "also that of bk-web1 vault" in outcome.refused["bk-thief"][0]
    assert (outcome.kept, outcome.missing) == ([], ["bk-thief vault"])
    old = plan(
        account("thief", key("a")), account("web1", key("a")),
        current=here({"web1": line("web1", "a"), "thief": line("thief", "t")}),
        manifest={"1": known("web1", vault="a"), "2": known("thief", vault="t")},
    )  # fmt: skip
    assert old.files["bk-thief"] == line("thief", "t")
    assert (old.kept, old.missing) == (["bk-thief vault"], [])
    both = plan(account("one", key("a")), account("two", key("a")))
    assert both.files == {"bk-one": "", "bk-two": ""}
    assert set(both.refused) == {"bk-one", "bk-two"}
    same = plan(account("web1", key("a"), key("a", repository="second")), current=current, manifest=manifest)
    assert same.files["bk-web1"] == line("web1", "a")
    assert "second" in same.refused["bk-web1"][0]


def test_a_copied_key_keeps_no_new_client_out() -> None:
    """One that is served already claims the key of one that comes only now: no manifest says whose it is."""
    current = here({"thief": line("thief", "t")})
    manifest = {"": known("thief", vault="t")}
    asked = (account("new", key("n")), account("thief", key("n")))
    outcome = plan(*asked, current=current, manifest=manifest)
    assert outcome.files == {"bk-new": line("new", "n"), "bk-thief": line("thief", "t")}
    assert (outcome.kept, outcome.missing, outcome.created_keys) == (["bk-thief vault"], [], ["bk-new vault"])
    (said,) = outcome.refused["bk-thief"]
    assert said == (
        f"vault: the public key {fingerprint(blob('n'))} is also that of bk-new vault: one of these hosts copied it, and is hostile:"
        " decommission that one; the other has its private key, ssh-keygen -yf /etc/holdfast/secrets/vault.ssh_key shows"
    )
    # From now on the manifest says it.
    after = here({name[3:]: text for name, text in outcome.files.items()})
    again = plan(*asked, current=after, manifest=outcome.manifest)
    assert again.files == outcome.files
    # A host that uses one key twice is told something else.
    for name in ("thief", "new"):
        two = plan(
            account(name, key("a", repository="one"), key("a", repository="two")), current=current, manifest=manifest
        )
        assert two.refused[f"bk-{name}"][0].endswith(f"is also that of bk-{name} two: let its host make one for each")
        assert two.files[f"bk-{name}"] == ""
    # Where both are new, or nobody remembers, nobody gets it.
    for before, lines in ((manifest, current), (None, here({"thief": line("thief", "t")}))):
        both = plan(account("one", key("n")), account("two", key("n")), current=lines, manifest=before)
        assert (both.files["bk-one"], both.files["bk-two"]) == ("", "")
        assert set(both.refused) == {"bk-one", "bk-two"}


def test_groups_are_exact() -> None:
    current = here({"web1": ""}, {"hfr-s3": frozenset({"bk-web1", "mallory"}), "hfr-old": frozenset({"bk-web1"})})
    outcome = plan(account("web1", groups=("hfr-s3",)), current=current)
    assert outcome.memberships == {"hfr-s3": frozenset({"bk-web1"}), "hfr-old": frozenset()}
    assert {"before_header": "group hfr-old", "after_header": "group hfr-old", "before": "bk-web1\n", "after": ""} in (
        logic.make_diff(current, outcome)
    )


def test_check_mode_knows_keys_that_do_not_exist_yet() -> None:
    item = account("web1", {"repository": "vault", "public_keys": [PLACEHOLDER], "from": []})
    outcome = plan(item, policy=replace(POLICY, check_mode=True))
    assert outcome.created_keys == ["bk-web1 vault"]
    assert outcome.served() == {"bk-web1": {"vault": []}}
    assert plan(item).refused


HOSTILE = ["", "UP", "a b", "a\n", "a\nb", "a--b", "-a", "a-", "a/b", "..", 'a"', "a%h", "a" * 29, "1a", "ä"]


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_names(bad: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        logic.parse_accounts([account(bad)])
    with pytest.raises(ValueError, match="is not a name"):
        logic.parse_accounts([account("web1", key("a", repository=bad))])
    with pytest.raises(ValueError, match="groups"):
        logic.parse_accounts([account("web1", groups=(f"hfr-{bad}x\n",))])


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match="name it after"):
        logic.parse_accounts([{**account("web1"), "name": "root"}])
    with pytest.raises(ValueError, match="declared twice"):
        logic.parse_accounts([account("web1"), account("web1")])
    with pytest.raises(ValueError, match="vault is declared twice"):
        logic.parse_accounts([account("web1", key("a"), key("b"))])
    for group in ("sudo", "docker", "hfr-", "hfr-" + "a" * 28):
        with pytest.raises(ValueError, match="groups"):
            logic.parse_accounts([account("web1", groups=(group,))])


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "*",
        "!192.0.2.1",
        "web1.example.net",
        "192.0.2.1/24",
        '192.0.2.1"',
        "192.0.2.1\n",
        "192.0.2.1,*",
        "fe80::1%eth0",
    ],
)
def test_hostile_sources(bad: str) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network"):
        logic.parse_accounts([account("web1", key("a", sources=(bad,)))])


@pytest.mark.parametrize("bad", ["serve", '/a"b', "/a b", "/a\n", "/a/../b", "/a,b", "/a\\b"])
def test_hostile_commands(bad: str) -> None:
    with pytest.raises(ValueError, match="plain absolute path"):
        logic.check_command(bad)
    assert logic.check_command(SERVE) == SERVE


def test_manifest_both_ways() -> None:
    manifest = Manifest(
        "f1",
        {
            "bk-web1": known("web1", vault="ab"),
            "bk-old": known("old", locked=True),
            "bk-web2": known("web2", retired="x"),
        },
    )
    assert logic.parse_manifest(logic.render_manifest(manifest), "m") == manifest
    assert logic.parse_manifest(None, "m") is None
    good = logic.render_manifest(manifest)
    for bad in (
        {}, {**good, "version": 2}, {**good, "fleet_id": None}, {**good, "accounts": []},
        {**good, "accounts": {"bk-web1": {}}}, {**good, "accounts": {"root": good["accounts"]["bk-web1"]}},
        {**good, "accounts": {"bk-../x": {"backup_id": "../x", "keys": {}, "locked": False}}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="m is not a manifest"):
            logic.parse_manifest(bad, "m")


def test_while_lines_are_written_the_manifest_knows_both() -> None:
    before = Manifest("f1", {"bk-web1": known("web1", vault="a"), "bk-old": known("old", vault="c")})
    both = logic.unite(before, {"bk-web1": known("web1", vault="b"), "bk-new": known("new", vault="d")}, "f1")
    assert both.accounts["bk-web1"] == known("web1", vault="ab")
    assert set(both.accounts) == {"bk-web1", "bk-old", "bk-new"}
    # Whatever is on the host when the run is killed, what was replaced stays known.
    after = {"bk-web1": replaced("b", "a")[""]}
    assert logic.unite(Manifest("f1", {"bk-web1": replaced("c", "x")[""]}), after, "f1").accounts == {
        "bk-web1": replaced("cb", "xa")[""]
    }
    assert logic.unite(None, {"bk-new": known("new", vault="d")}, "f1").accounts == {"bk-new": known("new", vault="d")}


def test_five_hundred_clients() -> None:
    def many(number: int) -> str:
        return base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + number.to_bytes(32, "big")).decode()

    items = [
        account(f"c{n}", {"repository": "vault", "public_keys": [f"ssh-ed25519 {many(n)}"], "from": []})
        for n in range(500)
    ]
    outcome = plan(*items)
    assert len(outcome.files) == 500
    assert len(set(outcome.files.values())) == 500
