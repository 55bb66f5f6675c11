# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private CA: decisions as pure logic, certificates with the real openssl and judged by Python's ssl."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.holdfast.backup.plugins.module_utils import _tls
from ansible_collections.holdfast.backup.plugins.module_utils._files import Tree
from ansible_collections.holdfast.backup.plugins.module_utils._tls import (
    DAY,
    Certificate,
    Decision,
    Found,
    Settings,
    TlsError,
)

NOW = 1_800_000_000.0
A, B, C = frozenset({"a"}), frozenset({"a", "b"}), frozenset({"c"})
WANTED = Settings(A, 90, None)
CURRENT = Certificate(int(NOW) + 3000 * DAY, frozenset(), A, "ca")
LEAF = Certificate(int(NOW) + 80 * DAY, A, None, "leaf")


# --- decisions


def decide(found: Found, wanted: Settings = WANTED, now: float = NOW, *, switch: bool = True) -> Decision:
    return _tls.decide(found, wanted, now, switch=switch)


def test_nothing_there_makes_everything() -> None:
    assert decide(Found()) == Decision(create=True, leaf_names=A)


def test_converged() -> None:
    assert decide(Found(CURRENT, leaf=LEAF)) == Decision()


@pytest.mark.parametrize("permitted", [A, None])
def test_an_authority_that_ended_or_is_none_is_replaced_at_once(permitted: frozenset[str] | None) -> None:
    ended = replace(CURRENT, permitted=permitted, not_after=int(NOW) if permitted else CURRENT.not_after)
    found = Found(ended, following=CURRENT, previous=CURRENT, leaf=LEAF)
    assert decide(found) == Decision(create=True, drop_following=True, drop_previous=True, leaf_names=A)


@pytest.mark.parametrize(
    ("leaf", "days"),
    [
        (None, 90),
        (replace(LEAF, names=B), 90),
        (replace(LEAF, not_after=int(NOW) + 29 * DAY), 90),
        (replace(LEAF, not_after=int(NOW) - 1), 90),
        (LEAF, 30),
    ],
)
def test_a_leaf_that_is_missing_wrong_old_or_too_long(leaf: Certificate | None, days: int) -> None:
    assert decide(Found(CURRENT, leaf=leaf), replace(WANTED, leaf_days=days)) == Decision(leaf_names=A)


def test_a_leaf_with_a_third_left_is_kept() -> None:
    assert decide(Found(CURRENT, leaf=replace(LEAF, not_after=int(NOW) + 30 * DAY))) == Decision()


def test_a_new_name_is_announced_first_and_served_later() -> None:
    wanted = replace(WANTED, names=B)
    assert decide(Found(CURRENT, leaf=LEAF), wanted) == Decision(announce=True, pending=True)
    following = replace(CURRENT, permitted=B)
    announced = Found(CURRENT, following, leaf=LEAF)
    assert decide(announced, wanted, switch=False) == Decision(pending=True)
    assert decide(announced, wanted) == Decision(switch=True, leaf_names=B)
    switched = Found(following, previous=CURRENT, leaf=replace(LEAF, names=B), previous_until=int(NOW) + 1)
    assert decide(switched, wanted) == Decision()
    assert decide(switched, wanted, now=NOW + 1) == Decision(drop_previous=True)


def test_another_name_keeps_the_old_ones_served_until_the_switch() -> None:
    wanted = replace(WANTED, names=C)
    assert decide(Found(CURRENT, leaf=LEAF), wanted) == Decision(announce=True, pending=True)
    assert decide(Found(CURRENT), wanted) == Decision(announce=True, pending=True, leaf_names=A)
    both = replace(CURRENT, permitted=B)
    assert decide(Found(both, leaf=LEAF), replace(WANTED, names=B | C)).leaf_names == B


def test_a_name_less_needs_no_new_authority() -> None:
    both = replace(CURRENT, permitted=B)
    assert decide(Found(both, leaf=replace(LEAF, names=B))) == Decision(leaf_names=A)


def test_an_announcement_that_is_taken_back_or_no_longer_fits() -> None:
    following = replace(CURRENT, permitted=B)
    assert decide(Found(CURRENT, following, leaf=LEAF)) == Decision(drop_following=True)
    changed = decide(Found(CURRENT, following, leaf=LEAF), replace(WANTED, names=A | C))
    assert changed == Decision(announce=True, pending=True)


def test_an_authority_in_its_last_year_is_replaced_with_overlap() -> None:
    ending = replace(CURRENT, not_after=int(NOW) + 365 * DAY)
    assert decide(Found(ending, leaf=LEAF)) == Decision(announce=True, pending=True)
    assert decide(Found(ending, CURRENT, leaf=LEAF)) == Decision(switch=True, leaf_names=A)


# --- names and settings


def test_names_have_one_spelling() -> None:
    names = _tls.parse_names(["Vault1.Example.NET", "[2001:DB8:0::1]", "192.0.2.1", "a_b", "x"])
    assert names == {"vault1.example.net", "2001:db8::1", "192.0.2.1", "a_b", "x"}


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a..b", "-a", "a-", "a\nb", "*.x", "300.1.2.3", "1.2.3", "a" * 64, "fe80::1%eth0", "ä", "a,DNS:b"],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(TlsError, match="`names`"):
        _tls.parse_names(["good", name])


def test_no_names() -> None:
    with pytest.raises(TlsError, match="is empty"):
        _tls.parse_names([])


def test_settings_survive_writing_and_reading() -> None:
    settings = Settings(B, 30, "rest-server", 7)
    assert Settings.parse(settings.render()) == settings
    for text in ("", "[]", "{}", settings.render().replace('"format": 1', '"format": 2'), '{"format": 1, "names": 7}'):
        with pytest.raises(TlsError, match=r"authority\.json is damaged"):
            Settings.parse(text)


def test_wildcards_of_a_users_certificate() -> None:
    names = {"*.example.net", "x", "192.0.2.1"}
    assert _tls.covers(names, "a.example.net")
    assert _tls.covers(names, "x")
    assert _tls.covers(names, "192.0.2.1")
    assert not _tls.covers(names, "example.net")
    assert not _tls.covers(names, "a.b.example.net")
    assert not _tls.covers({"*.0.2.1"}, "192.0.2.1")


# --- certificates, with openssl


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    made = tmp_path / "tls"
    made.mkdir(mode=0o755)
    return made


NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def handshake(server_pem: Path, ca: str, address: str, name: str) -> None:
    """Connect to a server with this certificate; raises ssl.SSLError when the client refuses it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pem)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _peer = listener.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = ssl.create_default_context(cadata=ca)
        try:
            with (
                socket.create_connection(listener.getsockname()[:2], timeout=10) as plain,
                client.wrap_socket(plain, server_hostname=name),
            ):
                pass
        finally:
            thread.join(10)


def write_leaf(directory: Path, authority: str, names: frozenset[str], days: int = 90) -> Path:
    path = directory / "test.pem"
    path.write_text(_tls.issue(authority, names, time.time(), days, str(directory)))
    return path


@pytest.mark.parametrize(("address", "name"), [("127.0.0.1", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_clients_accept_dns_names_and_addresses(directory: Path, address: str, name: str) -> None:
    authority = _tls.make_authority(NAMES, time.time(), str(directory))
    handshake(write_leaf(directory, authority, NAMES), _tls.certificate_part(authority), address, name)


@pytest.mark.parametrize(
    ("permitted", "served", "address", "name"),
    [
        (frozenset({"vault1"}), NAMES, "127.0.0.1", "localhost"),
        (frozenset({"vault1"}), frozenset({"127.0.0.1"}), "127.0.0.1", "127.0.0.1"),
        (frozenset({"vault1"}), frozenset({"::1"}), "::1", "::1"),
        (frozenset({"192.0.2.1"}), frozenset({"localhost"}), "127.0.0.1", "localhost"),
        (frozenset({"192.0.2.1"}), frozenset({"::1"}), "::1", "::1"),
        (frozenset({"192.0.2.1"}), frozenset({"127.0.0.1"}), "127.0.0.1", "127.0.0.1"),
    ],
)
def test_clients_refuse_names_that_the_authority_does_not_permit(
    directory: Path, permitted: frozenset[str], served: frozenset[str], address: str, name: str
) -> None:
    authority = _tls.make_authority(permitted, time.time(), str(directory))
    leaf = write_leaf(directory, authority, served)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(leaf, _tls.certificate_part(authority), address, name)
    with pytest.raises(TlsError, match=r"permitted subtree violation|verification failed"):
        _tls.check_signature(leaf.read_text(), authority)


def test_what_is_in_the_certificates(directory: Path) -> None:
    authority = _tls.make_authority(NAMES, NOW, str(directory))
    certificate = _tls.read_certificate(authority)
    assert certificate.permitted == NAMES
    assert certificate.not_after == NOW + 3650 * DAY
    assert certificate.names == frozenset()
    leaf = _tls.read_certificate(_tls.issue(authority, NAMES, NOW, 90, str(directory)))
    assert (leaf.names, leaf.permitted, leaf.not_after) == (NAMES, None, NOW + 90 * DAY)
    assert len(leaf.fingerprint) == 64
    only_dns = _tls.read_certificate(_tls.make_authority(["x"], NOW, str(directory)))
    assert set(only_dns.permitted or ()) == {"x", _tls._NO_IP}
    only_ip = _tls.read_certificate(_tls.make_authority(["::1"], NOW, str(directory)))
    assert set(only_ip.permitted or ()) == {"::1", "holdfast.invalid"}
    assert list(directory.iterdir()) == []


def test_certificates_are_valid_on_a_clock_that_is_a_day_late(directory: Path) -> None:
    authority = _tls.make_authority(NAMES, time.time(), str(directory))
    path = write_leaf(directory, authority, NAMES)
    for pem in (path.read_text(), authority):
        begins = subprocess.run(
            ["openssl", "x509", "-noout", "-startdate"], input=pem, capture_output=True, text=True, check=True
        ).stdout
        assert ssl.cert_time_to_seconds(begins.strip().partition("=")[2]) < time.time() - DAY


def test_pairs(directory: Path) -> None:
    first = _tls.make_authority(["x"], NOW, str(directory))
    second = _tls.make_authority(["x"], NOW, str(directory))
    _tls.check_pair(first, first)
    with pytest.raises(TlsError, match="does not belong"):
        _tls.check_pair(first, second)
    with pytest.raises(TlsError, match="no unencrypted PEM private key"):
        _tls.check_pair(first, _tls.certificate_part(first))
    with pytest.raises(TlsError, match="openssl x509"):
        _tls.check_pair("nothing", first)
    with pytest.raises(TlsError, match="openssl verify"):
        _tls.check_signature(first, second)


def test_an_answer_without_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tls, "_openssl", lambda _argv, _text: "")
    with pytest.raises(TlsError, match="does not tell"):
        _tls.read_certificate("x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(), "`openssl` is not installed"),
        (subprocess.TimeoutExpired("openssl", 60), "openssl x509 did not finish"),
    ],
)
def test_openssl_missing_or_hanging(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_keywords: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(TlsError, match=message):
        _tls.read_certificate("x")


# --- the directory


def converge(directory: Path, wanted: Settings, now: float = NOW, *, switch: bool = True) -> Decision:
    """What the module does, without Ansible."""
    with Tree() as tree:
        authority = _tls.Authority(tree, str(directory))
        authority.lock()
        found = authority.find()
        decision = _tls.decide(found, replace(wanted, previous_until=found.previous_until), now, switch=switch)
        settings = authority.apply(decision, replace(wanted, previous_until=found.previous_until), now)
        (directory / "authority.json").write_text(settings.render())
        return decision


def bundle(directory: Path) -> str:
    with Tree() as tree:
        return _tls.Authority(tree, str(directory)).bundle()


def test_a_change_of_names_never_breaks_clients(directory: Path) -> None:
    """At each step a client with the bundle of the step before still gets in by the name it knows."""
    old, new = Settings(frozenset({"127.0.0.1"}), 90, None), Settings(frozenset({"localhost"}), 90, None)
    leaf = directory / "leaf.pem"
    now = time.time()
    converge(directory, old, now)
    first = bundle(directory)
    handshake(leaf, first, "127.0.0.1", "127.0.0.1")
    assert converge(directory, new, now).announce
    second = bundle(directory)
    assert second.startswith(first)
    handshake(leaf, first, "127.0.0.1", "127.0.0.1")
    assert converge(directory, new, now).switch
    assert bundle(directory) == second
    handshake(leaf, second, "127.0.0.1", "localhost")
    assert converge(directory, new, now) == Decision()
    assert converge(directory, new, now + _tls.OVERLAP).drop_previous
    assert bundle(directory) == second[len(first) :]
    handshake(leaf, bundle(directory), "127.0.0.1", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, first, "127.0.0.1", "localhost")
    assert Settings.parse((directory / "authority.json").read_text()).previous_until == 0


def test_modes_of_the_files(directory: Path) -> None:
    converge(directory, replace(WANTED, group="daemon"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes["authority.pem"] == 0o600
    assert modes["leaf.pem"] == 0o640
    assert (directory / "leaf.pem").stat().st_gid == 1
    with pytest.raises(TlsError, match="no group 'no-such-group'"):
        _tls.leaf_access("no-such-group")
    assert _tls.leaf_access(None) == (0, 0o600)


def test_an_announcement_taken_back_is_removed(directory: Path) -> None:
    converge(directory, WANTED)
    converge(directory, replace(WANTED, names=B))
    assert bundle(directory).count("BEGIN") == 2
    converge(directory, WANTED)
    assert bundle(directory).count("BEGIN") == 1


def test_bundle_as_a_decision_would_leave_it(directory: Path) -> None:
    converge(directory, WANTED)
    converge(directory, replace(WANTED, names=B))
    with Tree() as tree:
        authority = _tls.Authority(tree, str(directory))
        assert authority.bundle(Decision(drop_following=True)).count("BEGIN") == 1
        (directory / "authority-previous.pem").write_text(
            _tls.certificate_part((directory / "authority.pem").read_text())
        )
        assert authority.bundle().count("BEGIN") == 3
        assert authority.bundle(Decision(switch=True)).count("BEGIN") == 2
        assert authority.bundle(Decision()).count("BEGIN") == 3


def test_damaged_files(directory: Path) -> None:
    converge(directory, WANTED)
    (directory / "leaf.pem").write_text("damaged")
    assert converge(directory, WANTED).leaf_names == A
    (directory / "authority.json").write_text("damaged")
    assert converge(directory, WANTED) == Decision()
    (directory / "authority.pem").write_text("damaged")
    with pytest.raises(TlsError, match=r"authority\.pem cannot be used .*restore it from a backup"):
        converge(directory, WANTED)
    (directory / "authority.pem").unlink()
    (directory / "authority.pem").symlink_to("/etc/passwd")
    with pytest.raises(TlsError, match="no regular file"):
        converge(directory, WANTED)
    with Tree() as tree, pytest.raises(TlsError, match=r"authority-next\.pem is missing"):
        _tls.Authority(tree, str(directory))._required("authority-next.pem")


def test_work_files_of_a_killed_run_are_cleared(directory: Path) -> None:
    (directory / ".work-x").mkdir()
    (directory / ".work-x" / "key").write_text("x")
    converge(directory, WANTED)
    assert not list(directory.glob(".work-*"))


# --- renewal without Ansible


def test_renewal(directory: Path) -> None:
    assert _tls.renew(str(directory), NOW) is False
    converge(directory, WANTED)
    authority = (directory / "authority.pem").read_text()
    before = (directory / "leaf.pem").read_text()
    assert _tls.renew(str(directory), NOW + 59 * DAY) is False
    assert (directory / "leaf.pem").read_text() == before
    assert _tls.renew(str(directory), NOW + 61 * DAY) is True
    after = (directory / "leaf.pem").read_text()
    assert _tls.read_certificate(after).not_after == NOW + 151 * DAY
    assert _tls._key_part(after) != _tls._key_part(before)
    _tls.check_signature(after, authority)
    assert (directory / "authority.pem").read_text() == authority
    assert _tls.renew(str(directory), NOW + 61 * DAY) is False


def test_renewal_goes_on_while_a_new_authority_waits(directory: Path) -> None:
    converge(directory, WANTED)
    converge(directory, replace(WANTED, names=C))
    assert _tls.renew(str(directory), NOW + 61 * DAY) is True
    assert _tls.read_certificate((directory / "leaf.pem").read_text()).names == A


def test_renewal_without_a_valid_authority(directory: Path) -> None:
    converge(directory, WANTED)
    with pytest.raises(TlsError, match="no valid CA"):
        _tls.renew(str(directory), NOW + 3650 * DAY)
    (directory / "authority.pem").unlink()
    with pytest.raises(TlsError, match="no valid CA"):
        _tls.renew(str(directory))
