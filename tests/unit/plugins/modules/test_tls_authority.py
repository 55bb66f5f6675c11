# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module tls_authority with the real openssl on a directory of the test's."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._secrets import UNBORN
from ansible_collections.holdfast.backup.plugins.modules import tls_authority

NAMES = ["vault1", "192.0.2.1", "2001:db8::1"]


class Server:
    """A server's directory, and the way to run the module on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys
        self.warnings: list[str] = []

    def run(self, names: list[str] | None = None, *, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {
            "directory": str(self.directory),
            "names": NAMES if names is None else names,
            "_ansible_check_mode": check,
            **options,
        }
        with patch_module_args(args), pytest.raises(SystemExit):
            tls_authority.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert "PRIVATE KEY" not in json.dumps(result)
        return result

    def snapshot(self) -> dict[str, tuple[int, str]]:
        return {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text()) for path in self.directory.iterdir()}


@pytest.fixture
def server(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Server:
    tmp_path.chmod(0o755)
    made = Server(tmp_path / "holdfast" / "tls", capsys)
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: made.warnings.append(text))
    return made


def test_bare_server_then_converged(server: Server) -> None:
    announced = server.run(check=True)
    assert announced["changed"] is True
    assert (announced["ca"], announced["fingerprint"], announced["leaf_not_after"]) == (UNBORN, UNBORN, None)
    assert not server.directory.exists()
    first = server.run()
    assert first["changed"] is True
    assert first["diff"] == announced["diff"]
    assert first["served_names"] == announced["served_names"] == sorted(NAMES)
    assert first["pending"] is False
    assert abs(first["leaf_not_after"] - time.time() - 90 * _tls.DAY) < 60
    assert first["certificate_file"] == first["key_file"] == str(server.directory / "leaf.pem")
    modes = {name: mode for name, (mode, _text) in server.snapshot().items()}
    assert modes == {"authority.json": 0o600, "authority.pem": 0o600, "ca.pem": 0o644, "leaf.pem": 0o600}
    assert (server.directory / "ca.pem").read_text() == first["ca"]
    before = server.snapshot()
    for check in (True, False):
        again = server.run(["[2001:DB8::1]", "192.0.2.1", "VAULT1"], check=check)
        assert again["changed"] is False
        assert {key: again[key] for key in ("ca", "fingerprint", "leaf_not_after")} == {
            key: first[key] for key in ("ca", "fingerprint", "leaf_not_after")
        }
    assert server.snapshot() == before


def both(server: Server, *names: str, **options: Any) -> dict[str, Any]:
    """Run in check mode and for real: what was announced has to come true."""
    before = server.snapshot()
    announced = server.run(list(names), check=True, **options)
    assert server.snapshot() == before
    done = server.run(list(names), **options)
    for key in ("changed", "pending", "served_names", "diff"):
        assert announced[key] == done[key], key
    assert announced["ca"] in (UNBORN, done["ca"])
    return done


def test_new_names_take_two_runs(server: Server) -> None:
    first = server.run(["vault1"])
    second = both(server, "vault2")
    assert (second["changed"], second["pending"], second["served_names"]) == (True, True, ["vault1"])
    assert second["ca"].startswith(first["ca"])
    assert second["fingerprint"] == first["fingerprint"]
    waiting = both(server, "vault2", switch=False)
    assert (waiting["changed"], waiting["pending"]) == (False, True)
    third = both(server, "vault2")
    assert (third["changed"], third["pending"], third["served_names"]) == (True, False, ["vault2"])
    assert third["ca"] == second["ca"]
    assert third["fingerprint"] != second["fingerprint"]
    assert both(server, "vault2")["changed"] is False


def test_modes_and_missing_files_are_put_right(server: Server) -> None:
    server.run(["x"])
    (server.directory / "authority.pem").chmod(0o644)
    (server.directory / "ca.pem").unlink()
    server.directory.chmod(0o700)
    assert both(server, "x")["changed"] is True
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o755
    assert server.snapshot()["authority.pem"][0] == 0o600
    assert both(server, "x")["changed"] is False


def test_the_group_of_the_key(server: Server) -> None:
    server.run(["x"])
    # In a first run the group comes with a package that check mode does not install.
    assert server.run(["x"], group="no-such-group", check=True)["changed"] is True
    assert "no group 'no-such-group'" in server.run(["x"], group="no-such-group")["msg"]
    assert both(server, "x", group="daemon")["changed"] is True
    assert server.snapshot()["leaf.pem"][0] == 0o640
    assert (server.directory / "leaf.pem").stat().st_gid == 1
    assert both(server, "x", group="daemon")["changed"] is False


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a b"], {}, "`names`: 'a b'"),
        ([], {}, "`names` is empty"),
        (["x"], {"leaf_days": 0}, "`leaf_days` 0"),
        (["x"], {"leaf_days": 4000}, "`leaf_days` 4000"),
        (["x"], {"mode": "provided"}, "certificate_file"),
    ],
)
def test_bad_options_change_nothing(server: Server, names: list[str], options: dict[str, Any], message: str) -> None:
    failed = server.run(names, **options)
    assert failed["failed"] is True
    assert message in failed["msg"]
    assert not server.directory.exists()


# --- a certificate of the user's


@pytest.fixture
def provided(tmp_path: Path) -> dict[str, Any]:
    """Files of a CA and a certificate for x and 192.0.2.1."""
    authority = _tls.make_authority(["x", "192.0.2.1"], time.time(), str(tmp_path))
    pem = _tls.issue(authority, ["x", "192.0.2.1"], time.time(), 90, str(tmp_path))
    (tmp_path / "ca.pem").write_text(authority)
    (tmp_path / "cert.pem").write_text(_tls.certificate_part(pem))
    (tmp_path / "key.pem").write_text(_tls._key_part(pem))
    options = {f"{name}_file": str(tmp_path / f"{short}.pem") for name, short in (("ca", "ca"), ("key", "key"))}
    return {"mode": "provided", "certificate_file": str(tmp_path / "cert.pem"), **options}


def test_a_good_certificate_of_the_user(server: Server, provided: dict[str, Any]) -> None:
    done = server.run(["x", "192.0.2.1"], **provided)
    assert (done["changed"], done["pending"]) == (False, False)
    assert done["ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert (done["certificate_file"], done["key_file"]) == (provided["certificate_file"], provided["key_file"])
    assert server.run(["x"], **dict(provided, ca_file=None))["ca"] is None
    assert server.run([], **provided)["served_names"] == done["served_names"]
    assert not server.directory.exists()


def test_bad_certificates_of_the_user(server: Server, provided: dict[str, Any], tmp_path: Path) -> None:
    assert "does not have other, which clients dial" in server.run(["x", "other"], **provided)["msg"]
    missing = server.run(["x"], **dict(provided, key_file="/nonexistent"))["msg"]
    assert missing == "`key_file` /nonexistent: No such file or directory"
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(_tls.make_authority(["x"], time.time(), str(tmp_path)))
    assert "does not belong" in server.run(["x"], **dict(provided, key_file=str(foreign)))["msg"]
    authority = (tmp_path / "ca.pem").read_text()
    old = tmp_path / "old.pem"
    for age, days, word in ((200, 90, "renew it"), (-5, 90, "wait until then"), (80, 90, None)):
        old.write_text(_tls.issue(authority, ["x"], time.time() - age * _tls.DAY, days, str(tmp_path)))
        done = server.run(["x"], **dict(provided, certificate_file=str(old), key_file=str(old)))
        if word:
            assert word in done["msg"]
        else:
            assert "ends on" in server.warnings[0]
