# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copy of sshd's configuration that a drop-in is tried in."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _sshd


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_sshd, "MAIN", str(tmp_path / "sshd_config"))
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config.d/05-first.conf").write_text("X11Forwarding yes\n")
    (tmp_path / "sshd_config.d/50-last.conf").write_text("# Match nothing\n")
    return tmp_path


def test_the_copy_has_the_drop_in_where_it_will_be(etc: Path) -> None:
    drop_in = str(etc / "sshd_config.d/10-holdfast.conf")
    for main in (f"Include {etc}/sshd_config.d/*.conf\nPort 22\n", 'include "sshd_config.d/*.conf"\nPort 22\n'):
        made = _sshd.make_candidate(main, drop_in, "/scratch/copy")
        assert made.text == (
            f"Include {etc}/sshd_config.d/05-first.conf\nInclude /scratch/copy\nInclude {etc}/sshd_config.d/50-last.conf\n"
            "Port 22\n"
        )
        assert (made.included, made.match, made.others) == (True, (), ())
    Path(drop_in).write_text("Match User bk-*\n")
    again = _sshd.make_candidate(main, drop_in, "/scratch/copy")
    assert again.text == made.text
    assert not again.others


def test_other_match_blocks(etc: Path) -> None:
    drop_in, first = str(etc / "sshd_config.d/10-holdfast.conf"), etc / "sshd_config.d/05-first.conf"
    setting = _sshd.Setting(f"{etc}/sshd_config line 2", "permittty", "no", (("user", "x"),), True)
    assert _sshd.make_candidate("Match User x\nPermitTTY no\n", drop_in, "/c").others == (setting,)
    first.write_text("Port 22\n  match user bk-web1\nX11Forwarding yes\n")
    assert _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others
    # As deep as includes go, and relative to the same directory.
    (etc / "more").write_text("Match User y\nX11Forwarding yes\n")
    first.write_text("Include more\n")
    (found,) = _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others
    assert (found.where, found.match) == (f"{etc}/more line 2", (("user", "y"),))
    first.write_text("Include sshd_config.d/05-first.conf\n")  # sshd says what is wrong with this
    assert not _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others
    first.unlink()
    first.mkdir()
    assert not _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others


REQUIRED = {"ForceCommand": "none", "PermitTTY": "no", "AcceptEnv": "NONE", "KbdInteractiveAuthentication": "no"}
USERS = ["bk-probe", "bk-web1"]
SFTP = "ForceCommand internal-sftp\n"


def unproven(
    etc: Path, *, before: str = "", after: str = "", main: str = "Include sshd_config.d/*.conf\n"
) -> list[str]:
    """What is refused of these files, without the directory."""
    (etc / "sshd_config.d/05-first.conf").write_text(before)
    (etc / "sshd_config.d/50-last.conf").write_text(after)
    made = _sshd.make_candidate(main, str(etc / "sshd_config.d/10-holdfast.conf"), "/c")
    return [each.replace(f"{etc}/", "") for each in _sshd.unproven(made, USERS, REQUIRED)]


@pytest.mark.parametrize(
    ("before", "line", "found"),
    [
        (f"Match Address 10.0.0.0/8\n{SFTP}", 2, "forcecommand internal-sftp under Match address 10.0.0.0/8"),
        (f"Match LocalPort 2222\n\n{SFTP}", 3, "forcecommand internal-sftp under Match localport 2222"),
        (f"Match LocalAddress 10.0.0.1\n{SFTP}", 2, "forcecommand internal-sftp under Match localaddress 10.0.0.1"),
        (f"Match RDomain x\n{SFTP}", 2, "forcecommand internal-sftp under Match rdomain x"),
        ("Match Host *.example.net\nPermitTTY yes\n", 2, "permittty yes under Match host *.example.net"),
        ("Match Unheard of\nPermitTTY yes\n", 2, "permittty yes under Match unheard of"),
        ("Match User * Address ::1\nPermitTTY yes\n", 2, "permittty yes under Match user * address ::1"),
        ("Match User bk-w?b1 Address ::1\nPermitTTY yes\n", 2, "permittty yes under Match user bk-w?b1 address ::1"),
        # As sshd reads it.
        ('\t"Match" Address=::1 # them\r\nPermitTTY=yes # x\r\n', 2, "permittty yes under Match address ::1"),
        (
            "Match Address ::1\nChallengeResponseAuthentication yes\n",
            2,
            "kbdinteractiveauthentication yes under Match address ::1",
        ),
        # A probe from this address would not see the second.
        (
            "Match Address 192.0.2.1\nPermitTTY no\nMatch User bk-*\nPermitTTY yes\n",
            4,
            "permittty yes under Match user bk-*",
        ),
    ],
)
def test_what_would_hold_for_some_clients(etc: Path, before: str, line: int, found: str) -> None:
    assert unproven(etc, before=before) == [f"sshd_config.d/05-first.conf line {line} has {found}"]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "Match Address ::1\nPermitTTY no\nBanner /etc/issue\n",
        f"Match Address 10.0.0.0/8 User *,!bk-*\n{SFTP}",
        f"Match User admin,store-* Address 10.0.0.0/8\n{SFTP}",
        f"Match Group no-such-group LocalPort 2222\n{SFTP}",
        f"Match invalid-user Address 10.0.0.0/8\n{SFTP}",
        # Sshd itself tells of these, when it is asked.
        f"Match User bk-*\n{SFTP}",
        f"Match all\n{SFTP}",
        f"# Match Address 10.0.0.0/8\n{SFTP}",
    ],
)
def test_what_cannot_hold_or_can_be_asked(etc: Path, before: str) -> None:
    assert unproven(etc, before=before) == []


def test_where_a_block_stands(etc: Path) -> None:
    block = f"Match Address 10.0.0.0/8\n{SFTP}"
    assert unproven(etc, after=block) == []
    assert unproven(etc, main=f"Include sshd_config.d/*.conf\n{block}") == []
    assert "05-first.conf" in unproven(etc, before=block, after=block)[0]
    found = "line 2 has forcecommand internal-sftp under Match address 10.0.0.0/8"
    assert unproven(etc, main=f"{block}Match all\nInclude sshd_config.d/*.conf\n") == [f"sshd_config {found}"]
    (etc / "more").write_text(block)
    assert unproven(etc, before="Include more\n") == [f"more {found}"]
    # A file that is included in a block is all in it.
    (etc / "more").write_text(SFTP)
    found = "more line 1 has forcecommand internal-sftp under Match address ::1"
    assert unproven(etc, before="Match Address ::1\nInclude more\n") == [found]
    inside = unproven(etc, main="Match LocalPort 22\nInclude sshd_config.d/*.conf\n")
    assert inside == ["its Include in sshd_config is in a block of Match localport 22: put it before the first Match"]
    # Sshd takes these from every block that holds, tried with OpenSSH 9.2.
    found = "sshd_config.d/50-last.conf line 2 adds acceptenv LD_* under Match address ::1"
    assert unproven(etc, after="Match Address ::1\nAcceptEnv LD_*\n") == [found]


def test_groups_of_an_account(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"bk-web1": ("bk-web1", "hfr-s3")}
    monkeypatch.setattr(_sshd, "_groups", lambda user: groups.get(user, ()))
    for patterns, refused in (("hfr-*", 1), ("sftponly", 0), ("hfr-*,!bk-*", 0), ("*", 1)):
        assert len(unproven(etc, before=f"Match Group {patterns} Address ::1\n{SFTP}")) == refused
    monkeypatch.undo()
    assert "root" in _sshd._groups("root")
    assert _sshd._groups("bk-nobody-has-it") == ()


def test_not_included(etc: Path) -> None:
    for pattern in ("sshd_config.d/*.txt", "sshd_config.d/[0-9]*", "other.d/*.conf", "sshd_config.d/1?-x.conf"):
        made = _sshd.make_candidate(f"Include {pattern}\n", str(etc / "sshd_config.d/10-holdfast.conf"), "/c")
        assert not made.included
    exact = _sshd.make_candidate(
        "Include sshd_config.d/10-holdfast.conf sshd_config.d/1?-h*.conf\n",
        str(etc / "sshd_config.d/10-holdfast.conf"),
        "/c",
    )
    assert exact.text == "Include /c\nInclude /c\n"


def test_who_is_asked_about() -> None:
    assert len(_sshd.probes(["bk-a", "bk-b", "bk-c"], False)) == 3
    assert len(_sshd.probes(["bk-a", "bk-b", "bk-c"], True)) == 5
    assert _sshd.probes(["bk-a"], False)[0] == "user=bk-a,host=client,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain="
    for bad in ("", "a,addr=x", "A", "a\n"):
        with pytest.raises(ValueError, match="is not the name of an account"):
            _sshd.check_user(bad)


def test_what_sshd_says() -> None:
    settings = _sshd.parse_settings("permittty no\nacceptenv LANG\nacceptenv LC_*\nauthorizedkeysfile a b\n")
    assert _sshd.differences(settings, {"PermitTTY": "no", "acceptenv": "LANG LC_*", "authorizedkeysfile": "a b"}) == []
    assert _sshd.differences(settings, {"permittty": "yes", "unheard": "of"}) == [
        "permittty is 'no' and must be 'yes'",
        "unheard is 'not known to this sshd' and must be 'of'",
    ]
