# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Append-only over rest-server, rclone and borg, attacked from a client with that client's own credentials."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.fleet import ROOT

from .fleet_side import OTHERS, PLACES, Protected

REST = ROOT / "molecule/end_to_end/tests/attack.py"
# Of borg: how the client names its repository, and the directory itself.
OWN = "/./web1--archive"
HELD = f"{PLACES['archive']}/web1--archive"
# All that it has over borg.
BORG = ["archive", "free"]
# One that the client has itself, without any restriction: the same calls do destroy it.
LOCAL = "/root/victim"
DELIVERED = ["borg", "serve"]
# What a quota counts of a directory, and what web1--archive has of it, with an object that is just being written.
TAKEN = "find {} -printf '%s\\n' | awk '{{ sum += $1 > 16384 ? $1 : 16384 }} END {{ print sum }}'"
QUOTA = 21_000_000
# A lock that no restic made, with the name that restic would give it.
LOCK = f"/locks/{hashlib.sha256(b'x').hexdigest()}"
# The methods of the attacks on rclone, where they are good.
ALLOWED = [("GET", "/config", ""), ("POST", LOCK, "x"), ("DELETE", LOCK, "")]


def cut_off(protected: Protected, attacks: list[tuple[str, str, str]], words: str = "") -> None:
    """Each of the requests to rclone ends its session with the server's own words; what is asked just before and after is answered."""
    asked = [request for attack in attacks for request in (*ALLOWED, attack)]
    statuses, said = protected.http("proxy", *asked, *ALLOWED)
    assert statuses == [*[200, 200, 200, 0] * len(attacks), 200, 200, 200], said
    for method, path, _body in attacks:
        why = words.format(path) if words else f"{method!r} {path!r} is no part of restic's layout"
        assert f"holdfast: web1--proxy: refused: {why}" in said


def test_rest_server(protected: Protected) -> None:
    with protected.kept("vault"):
        tried = json.loads(protected.sh("web1", "python3 /dev/stdin db1--vault", stdin=REST))
    assert len(tried["refused"]) > 40
    assert set(tried["controls"].values()) == {200}, tried["controls"]
    assert not {what: status for what, status in tried["refused"].items() if status not in (400, 401, 403, 404, 405)}
    assert protected.ran("web1", "vault") == "ok"


def test_rclone(protected: Protected) -> None:
    """Every kind of object, config and index among them; the same methods are good for a lock.

    Another content than a name says does not come as far as rclone; `config` has a name that says nothing.
    """
    objects = protected.objects("web1", "proxy")
    one = {path[1:].split("/")[1]: path[1:] for path in objects}
    assert set(one) == {"config", "keys", "data", "index", "snapshots"}
    # A pack lies in a directory named after it, which is no part of the request.
    one["data"] = f"/data/{one['data'].rsplit('/', 1)[1]}"
    attacks = [("POST", "/config", "x"), *(("DELETE", path, "") for path in one.values())]
    changed = [("POST", path, "x") for kind, path in one.items() if kind != "config"]
    other = [
        (method, path, body)
        for path in (
            "/../db1--proxy/config",
            "/%2e%2e/db1--proxy/config",
            "//../db1--proxy/config",
            "/db1--proxy/config",
        )
        for method, body in (("GET", ""), ("DELETE", ""))
    ]
    with protected.kept("proxy"):
        statuses, said = protected.http("proxy", *ALLOWED, *attacks, *ALLOWED)
        assert statuses == [200, 200, 200, *[403] * len(attacks), 200, 200, 200], said
        cut_off(protected, changed, "another content than {!r} has by its name")
        cut_off(protected, other)
    assert protected.ran("web1", "proxy") == "ok"


def test_rclone_takes_no_other_name(protected: Protected) -> None:
    """Only restic's own layout: no plain name besides, no other method."""
    odd = [
        "/junk",
        "/data/xyz",
        "/snapshots/../x",
        "/foo/bar",
        "/data/",
        "/keys/junk",
        f"{LOCK}/x",
        f"/data/{'A' * 64}",
    ]
    attacks = [("POST", path, "x") for path in odd] + [("PUT", "/config", "x"), ("GET", "/", ""), ("POST", "/", "x")]
    before = protected.sh("vault1", f"find {PLACES['proxy']}/web1--proxy ! -path '*/locks*' | sort")
    with protected.kept("proxy"):
        cut_off(protected, attacks)
    assert protected.sh("vault1", f"find {PLACES['proxy']}/web1--proxy ! -path '*/locks*' | sort") == before
    assert protected.ran("web1", "proxy") == "ok"


def test_borg_opens_what_it_is_for(protected: Protected) -> None:
    """The control of what follows: the session is the client's own, and its repository is served."""
    assert protected.borg_calls("open", OWN, protected.dial("archive")) == [["negotiate", ""], ["open", ""]]


@contextlib.contextmanager
def as_it_was(protected: Protected, repository: str) -> Iterator[None]:
    """What is done to a repository of web1's is no more afterwards; a backup is made, and what no client may change stays meanwhile."""
    held = f"{PLACES[repository]}/web1--{repository}"
    protected.sh("vault1", f"rm -rf /root/before; cp -a {held} /root/before")
    try:
        with protected.kept(repository):
            yield
    finally:
        # What was deleted is not shown any more, though nothing of it is gone: the next test wants it as it was.
        protected.sh("vault1", f"rm -rf {held} && cp -a /root/before {held}")
    assert protected.ran("web1", repository) == "ok"


@pytest.mark.parametrize("repository", BORG)
@pytest.mark.parametrize("attack", ["destroy", "destroy after create", "delete", "overwrite"])
def test_borg(protected: Protected, attack: str, repository: str) -> None:
    """Calls that no borg makes. Each destroys a repository that is not served append-only: the attack is delivered."""
    segments = f"rm -rf {LOCAL}.sums; cd {LOCAL} && find data -type f -exec sha256sum {{}} + >{LOCAL}.sums; test -s {LOCAL}.sums"
    protected.sh("web1", f"rm -rf {LOCAL}")
    assert {error for _method, error in protected.borg_calls("make", LOCAL, DELIVERED)} == {""}
    protected.sh("web1", segments)
    protected.borg_calls(attack, LOCAL, DELIVERED)
    assert protected.run("web1", f"cd {LOCAL} && sha256sum -c --quiet {LOCAL}.sums").rc != 0, "not delivered"
    with as_it_was(protected, repository):
        answers = protected.borg_calls(attack, f"/./web1--{repository}", protected.dial(repository))
        assert ["open", "closed"] not in answers


@pytest.mark.parametrize("repository", BORG)
@pytest.mark.parametrize("attack", ["before others saved", "while others save", "with files of before"])
def test_a_borg_session_deletes_nothing_that_another_one_saves(
    protected: Protected, attack: str, repository: str
) -> None:
    """Whoever begins to write deletes what borg takes for uncommitted, append-only or not: what the other one saved is gone."""
    protected.sh("web1", f"rm -rf {LOCAL}")
    protected.borg_calls("make", LOCAL, DELIVERED)
    delivered = protected.borg_calls(attack, LOCAL, [*DELIVERED, "--append-only"])
    assert ["get", ""] not in delivered, "not delivered"
    assert delivered[-1][0] == "get"
    with as_it_was(protected, repository):
        answers = protected.borg_calls(attack, f"/./web1--{repository}", protected.dial(repository))
        assert answers[-4:] == [["put", "LockTimeout"], *[["get", ""]] * 3]


def test_the_borg_session_that_makes_a_repository_keeps_what_is_in_it(protected: Protected) -> None:
    attack = "delete what it made"
    data = "find {}/data -type f -size +4k"
    protected.sh("web1", f"rm -rf {LOCAL}")
    protected.borg_calls(attack, LOCAL, DELIVERED)
    assert not protected.sh("web1", data.format(LOCAL)), "not delivered"
    # An empty directory, as the playbook makes it for a new repository.
    protected.sh(
        "vault1", f"rm -rf /root/before && mv {HELD} /root/before && install -d -m 700 -o bk-web1 -g bk-web1 {HELD}"
    )
    try:
        answers = protected.borg_calls(attack, OWN, protected.dial("archive"))
        assert {error for _method, error in answers} == {""}
        assert protected.sh("vault1", data.format(HELD))
    finally:
        protected.sh("vault1", f"rm -rf {HELD} && mv /root/before {HELD}")
    assert protected.ran("web1", "archive") == "ok"


def test_a_borg_key_is_nothing_else(protected: Protected) -> None:
    """What comes after a carriage return is borg's next option where Python is older than 3.13: nobody can open that any more, say."""
    protected.sh("web1", f"rm -rf {LOCAL}")
    protected.borg_calls("make", LOCAL, DELIVERED)
    assert protected.borg_calls("key", LOCAL, DELIVERED)[-1] == ["save_key", ""], "not delivered"
    assert "append_only = 0" in protected.sh("web1", f"grep -A 1 '^key = QUJD' {LOCAL}/config"), "not delivered"
    with protected.kept("archive"):
        answers = protected.borg_calls("key", OWN, protected.dial("archive"))
    assert answers[1:] == [["open", ""], ["save_key", "ValueError"]]
    assert protected.ran("web1", "archive") == "ok"


@pytest.mark.parametrize("attack", ["open", "create"])
@pytest.mark.parametrize(
    "path",
    [
        "/./db1--archive", f"{OWN}/../db1--archive", "/srv/holdfast-ssh/db1--archive", "//srv//holdfast-ssh//db1--archive",
        "/./%2e%2e/db1--archive", "/~/elsewhere", "/tmp/elsewhere", f"{OWN}/below", "/./web1--archive2",
    ],
)  # fmt: skip
def test_borg_opens_no_other_path(protected: Protected, attack: str, path: str) -> None:
    with protected.kept("archive"):
        assert protected.borg_calls(attack, path, protected.dial("archive"))[-1] == ["open", "PathNotAllowed"]
    assert protected.run("vault1", f"test -e /tmp/elsewhere -o -e {HELD}/below").rc != 0


def test_a_full_quota_is_its_owners_alone(protected: Protected) -> None:
    protected.sh("web1", "head -c 40M /dev/urandom >/root/too-much")
    try:
        with protected.kept("archive"):
            assert protected.ran("web1", "archive") == "failed"
        assert "disk full" in protected.sh("web1", "cat /var/lib/holdfast/outcomes/system--archive.json")
        for host, repository in (("web1", "proxy"), *(("db1", each) for each in OTHERS)):
            assert protected.ran(host, repository) == "ok", (host, repository)
    finally:
        protected.sh("web1", "rm /root/too-much")
    assert protected.ran("web1", "archive") == "ok"


@pytest.mark.parametrize("attack", ["fill", "fill with files"])
def test_a_borg_quota_stops_whoever_goes_on_after_it(protected: Protected, attack: str) -> None:
    """Calls that no borg makes. By itself it compares when all is on disk, and forgets what was not committed."""
    protected.sh("web1", f"rm -rf {LOCAL}")
    protected.borg_calls("make", LOCAL, DELIVERED)
    protected.borg_calls(attack, LOCAL, [*DELIVERED, "--append-only", "--storage-quota", "20M"])
    assert int(protected.sh("web1", TAKEN.format(LOCAL))) > QUOTA, "not delivered"
    protected.sh("web1", f"rm -rf {LOCAL}")
    assert protected.ran("web1", "archive") == "ok"
    protected.sh("vault1", f"rm -rf /root/before && cp -a {HELD} /root/before")
    try:
        with protected.kept("archive"):
            for _session in range(2):
                answers = protected.borg_calls(attack, OWN, protected.dial("archive"))
                assert ["put", ""] in answers
                assert answers[-1] == ["put", "StorageQuotaExceeded"]
                assert int(protected.sh("vault1", TAKEN.format(HELD))) < QUOTA
    except BaseException:
        # What follows would have no room for a backup.
        protected.sh("vault1", f"rm -rf {HELD} && cp -a /root/before {HELD}")
        raise
    assert protected.ran("db1", "archive") == "ok"
    assert protected.ran("web1", "archive") == "ok"


def test_a_kernel_that_sees_no_file_cut_by_its_name_lets_nothing_out(protected: Protected) -> None:
    """Landlock before Linux 6.2, as Debian 12 has it. Without what reads along, sftp cuts a file of another repository."""
    own, other = f"{PLACES['files']}/web1--files", f"{PLACES['proxy']}/web1--proxy/victim"
    make = f"runuser -u bk-web1 -- sh -c 'echo precious >{other}'"
    serve, layout = "/usr/local/libexec/holdfast/serve", "/usr/local/libexec/holdfast/restic-layout"
    old = "s/^    version = call(.*/&; version = min(version, 2)/"
    protected.sh(
        "vault1", f"cp -a {serve} {layout} /root/; sed -i '{old}' {serve}; grep -q 'version = min' {serve}; {make}"
    )
    try:
        assert protected.sftp_calls(own, other)["by name"]["size"] == -1
        assert protected.sh("vault1", f"cat {other}").strip() == "precious"
        protected.sh("vault1", f"printf '#!/bin/sh\\nexec cat\\n' >{layout}")
        assert protected.sftp_calls(own, other)["by name"]["size"] == 0
        assert protected.sh("vault1", f"cat {other}") == ""
    finally:
        protected.sh("vault1", f"cp -a /root/serve {serve}; cp -a /root/restic-layout {layout}; rm -f {other}")


@pytest.mark.parametrize("repository", ["proxy", "archive"])
def test_the_key_of_one_repository_opens_no_other_of_the_account(protected: Protected, repository: str) -> None:
    """Both belong to the same account: only what the key runs stands between. In its own directory, each operation but one succeeds."""
    own = f"{PLACES['files']}/web1--files"
    other = f"{PLACES[repository]}/web1--{repository}/config"
    assert protected.ran("web1", "files") == "ok"
    kept, names = protected.objects("web1", "files"), f"find {PLACES['files']} ! -path '*/locks*' | sort"
    before = protected.sh("vault1", names)
    with protected.kept(repository):
        tried = protected.sftp_calls(own, other)
    # By its name nothing is changed but a mode, and that only there: the kernel does not see it, nor do old ones a file that is cut so.
    by_name = tried.pop("by name")
    assert by_name.pop("mode of its own") == 0
    assert len(by_name) == 7
    assert set(by_name.values()) == {-1}, by_name
    assert set(tried["before"].values()) == set(tried["after"].values()) == {0}, tried
    # Denied (3), or failed (4) as across file systems; not that there is no such file (2).
    assert set(tried["attack"].values()) <= {3, 4}, tried
    assert set(tried["attack"]) == set(tried["before"])
    assert protected.sh("vault1", names) == before
    assert protected.objects("web1", "files") == kept
    for each in ("files", repository):
        assert protected.ran("web1", each) == "ok"
