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
        assert (made.included, made.others_match) == (True, False)
    Path(drop_in).write_text("Match User bk-*\n")
    again = _sshd.make_candidate(main, drop_in, "/scratch/copy")
    assert again.text == made.text
    assert not again.others_match


def test_other_match_blocks(etc: Path) -> None:
    drop_in = str(etc / "sshd_config.d/10-holdfast.conf")
    assert _sshd.make_candidate("Match User x\n", drop_in, "/c") == _sshd.Candidate("Match User x\n", False, True)
    (etc / "sshd_config.d/05-first.conf").write_text("Port 22\n  match user bk-web1\nX11Forwarding yes\n")
    assert _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others_match
    (etc / "sshd_config.d/05-first.conf").unlink()
    (etc / "sshd_config.d/05-first.conf").mkdir()
    assert not _sshd.make_candidate("Include sshd_config.d/*.conf\n", drop_in, "/c").others_match


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
