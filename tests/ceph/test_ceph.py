"""A client, a proxy, and Ceph behind it: what the proxy refuses, what the store's policy adds, and how its refusals look."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.site import play
from tests.ceph.s3 import Store
from tests.lab import Lab
from tests.lab.mirror import describe

BUCKET = "company-backups"
PLACE = f"/{BUCKET}/fleet/web1--offsite"
SECRET = "canary-5e1d-ceph"
DIRECT, DIRECT_SECRET = "direct-backups", "canary-7b2f-ceph"
GUIDE = Path(__file__).resolve().parents[2] / "docs/s3.md"
RCLONE = "/usr/local/bin/rclone --config /etc/holdfast/rclone/ceph.conf"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/proxy"]},
            "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        },
        {
            "Effect": "Deny", "Principal": {"AWS": ["arn:aws:iam:::user/proxy"]},
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], "NotResource": [f"arn:aws:s3:::{BUCKET}/*/locks/*"],
        },
    ],
}  # fmt: skip


@dataclass
class Fleet:
    """The hosts, and the store as its owner and as the proxy see it."""

    lab: Lab
    folder: Path
    owner: Store
    proxy: Store

    def on(self, host: str, script: str, *, fails: bool = False, timeout: float = 300) -> str:
        """Run a script; asserts that it ends with 0, or (fails) that it does not."""
        done = self.lab.exec(host, ["bash", "-c", script], timeout=timeout)
        assert (done.returncode != 0) == fails, f"{script}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout + done.stderr)

    def backup(self, repository: str = "offsite") -> dict[str, Any]:
        """Back up once and return the outcome."""
        unit = f"system--{repository}"
        self.lab.exec("web1", ["timeout", "120", "holdfast", "run", unit, "--wait"], timeout=180)
        return dict(json.loads(self.on("web1", f"cat /var/lib/holdfast/outcomes/{unit}.json")))

    def objects(self, store: Store | None = None) -> list[str]:
        """Paths of all objects of the client's repository."""
        status, text = (store or self.owner).request("GET", f"/{BUCKET}", {"prefix": PLACE[len(BUCKET) + 2 :] + "/"})
        assert status == 200, text
        return [f"/{BUCKET}/{key}" for key in re.findall(r"<Key>([^<]+)</Key>", text)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    lab, folder = Lab("ceph"), Path(tempfile.mkdtemp(prefix="holdfast-ceph-"))
    try:
        lab.up(["ceph1=trixie", "proxy1=trixie", "web1=trixie:layer=restic"], owner=os.getpid())
        address = lab.addresses("ceph1")[0]
        lab.put("ceph1", "/root/ceph.sh", Path(__file__).with_name("ceph.sh").read_bytes())
        lab.exec("ceph1", ["bash", "/root/ceph.sh", address], timeout=600, check=True)
        host = f"{address}:7480"
        made = Fleet(lab, folder, Store(host, "OWNER", "owner-secret"), Store(host, "PROXY", SECRET))
        for bucket, policy in ((BUCKET, json.dumps(POLICY)), (DIRECT, guide_policy())):
            status, text = made.owner.request("PUT", f"/{bucket}")
            assert status == 200, text
            status, text = made.owner.request("PUT", f"/{bucket}", {"policy": ""}, policy.encode())
            assert status in (200, 204), text
        versioning = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        assert made.owner.request("PUT", f"/{DIRECT}", {"versioning": ""}, versioning)[0] == 200
        provision(made)
        yield made
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)


def guide_policy() -> str:
    """The policy that docs/s3.md shows, for another bucket."""
    found = re.search(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found
    return found[1].replace(BUCKET, DIRECT)


def provision(fleet: Fleet) -> None:
    """The playbook, as a user runs it."""
    mirror = describe()
    release = next(item for item in mirror["releases"] if item["tool"] == "rclone")
    inventory = fleet.lab.inventory({"backup_servers": ["proxy1"], "backup_clients": ["web1"]})
    inventory["all"]["vars"] |= {
        "backup_escrow": {"mode": "none"},
        "backup_repositories": {
            "offsite": {"engine": "restic", "access": "rclone", "server": "proxy1", "remote": f"ceph:{BUCKET}/fleet"},
            "direct": {
                "engine": "restic", "access": "s3", "url": f"s3:http://{fleet.owner.host}/{DIRECT}/web1",
                "environment": {"AWS_ACCESS_KEY_ID": "WEB1", "AWS_SECRET_ACCESS_KEY": DIRECT_SECRET},
                "options": {"s3.bucket-lookup": "path"},
            },
        },
        "backup_jobs": {"system": {"paths": ["/etc"]}},
        "rclone_proxy_install": "release",
        "rclone_proxy_release_version": release["version"],
        "rclone_proxy_release_mirror": f"{mirror['url_by_name']}rclone",
        "rclone_proxy_release_sha256": {"x86_64": release["sha256"]},
        "rclone_proxy_remotes": {
            "ceph": {
                "type": "s3", "provider": "Ceph", "endpoint": f"http://{fleet.owner.host}", "access_key_id": "PROXY",
                "secret_access_key": SECRET, "region": "default", "chunk_size": "5M", "upload_cutoff": "5M",
            }
        },
    }  # fmt: skip
    (fleet.folder / "inventory.yml").write_text(json.dumps(inventory))
    play(fleet.folder, "holdfast.backup.site")


def test_backup_in_parts_restored_and_compared(fleet: Fleet) -> None:
    fleet.on("web1", "head -c 30000000 /dev/urandom >/etc/large")
    assert fleet.backup()["outcome"] == "ok"
    fleet.on("web1", "holdfast restore system--offsite --target /root/back")
    fleet.on("web1", "diff -r --no-dereference /etc /root/back/etc")
    assert any("/snapshots/" in path for path in fleet.objects())
    # What came in parts has a tag that ends in their number.
    status, listed = fleet.owner.request("GET", f"/{BUCKET}", {"prefix": f"{PLACE[len(BUCKET) + 2 :]}/data/"})
    assert status == 200, listed
    assert re.search(r'-\d+("|&quot;)?</ETag>', listed), listed
    # The policy lets locks go.
    assert not [path for path in fleet.objects() if "/locks/" in path]
    _seconds, counts, output = play(fleet.folder, "holdfast.backup.site")
    assert "changed=0" in output, counts


def test_an_overwrite_succeeds_directly_despite_the_policy_and_fails_through_the_proxy(fleet: Fleet) -> None:
    assert fleet.backup()["outcome"] == "ok"
    snapshot = next(path for path in fleet.objects() if "/snapshots/" in path)
    # Objects belong to who wrote them, also where the bucket is another's.
    status, before = fleet.proxy.request("GET", snapshot)
    assert status == 200
    # With the proxy's own credentials: no deletion, by the policy, but an overwrite is none.
    assert fleet.proxy.request("DELETE", snapshot)[0] == 403
    target = f"ceph:{snapshot[1:]}"
    fleet.on("proxy1", f"{RCLONE} copyto {target} /root/kept")
    assert "AccessDenied" in fleet.on("proxy1", f"{RCLONE} deletefile --retries 1 {target}", fails=True)
    fleet.on("proxy1", f"echo other | {RCLONE} rcat {target}")
    assert fleet.proxy.request("GET", snapshot) == (200, "other\n")
    fleet.on("proxy1", f"{RCLONE} copyto /root/kept {target}")
    assert fleet.proxy.request("GET", snapshot)[1] == before
    # Through the proxy, as the client: a new object is taken, and neither changed nor deleted.
    name = snapshot.removeprefix(PLACE)
    fleet.on("web1", "apt-get install -qq --yes --no-install-recommends curl >/dev/null 2>&1")
    bridge = Path(__file__).resolve().parents[2] / "molecule/rclone_proxy/tests/bridge.py"
    fleet.lab.put("web1", "/root/bridge.py", bridge.read_bytes())
    ssh = "ssh -F /etc/holdfast/ssh/offsite.conf -i /etc/holdfast/secrets/offsite.ssh_key holdfast-offsite x"
    curl = "curl --http2-prior-knowledge -s -m 60 -o /dev/null -w '%{http_code} '"
    lock = f"/locks/{sha256(b'x').hexdigest()}"
    # An upload of another content would not come as far as rclone, unless the name says nothing of it.
    asked = [("POST", lock), ("DELETE", lock), ("POST", "/config"), ("DELETE", name), ("GET", name)]
    said = fleet.on(
        "web1",
        f"python3 /root/bridge.py 9900 {ssh} 2>/dev/null & until ss -Hltn sport = :9900 | grep -q .; do sleep 0.1; done; "
        + "; ".join(
            f"{curl} -X {method} {'-d x' if method == 'POST' else ''} http://127.0.0.1:9900{path}"
            for method, path in asked
        )
        + "; kill %1",
    )
    assert said.split()[:5] == ["200", "200", "403", "403", "200"]
    assert fleet.proxy.request("GET", snapshot)[1] == before


def test_versions_and_object_lock_keep_what_was_overwritten(fleet: Fleet) -> None:
    locked = "/locked-bucket"
    assert fleet.owner.request("PUT", locked, x_amz_bucket_object_lock_enabled="true")[0] == 200
    rule = (
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode>"
        b"<Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    checksum = b64encode(md5(rule, usedforsecurity=False).digest()).decode()
    status, text = fleet.owner.request("PUT", locked, {"object-lock": ""}, rule, content_md5=checksum)
    assert status == 200, text
    for content in (b"first", b"second"):
        md = b64encode(md5(content, usedforsecurity=False).digest()).decode()
        assert fleet.owner.request("PUT", f"{locked}/x", None, content, content_md5=md)[0] == 200
    _status, versions = fleet.owner.request("GET", locked, {"versions": ""})
    ids = re.findall(r"<VersionId>([^<]+)</VersionId>", versions)
    assert len(ids) == 2
    contents = {fleet.owner.request("GET", f"{locked}/x", {"versionId": each})[1] for each in ids}
    assert contents == {"first", "second"}
    for each in ids:
        assert fleet.owner.request("DELETE", f"{locked}/x", {"versionId": each})[0] == 403


def test_the_guides_policy_lets_a_client_back_up_and_delete_nothing_but_locks(fleet: Fleet) -> None:
    client = Store(fleet.owner.host, "WEB1", DIRECT_SECRET)
    for _run in range(2):
        assert fleet.backup("direct")["outcome"] == "ok"
    fleet.on("web1", "holdfast restore system--direct --target /root/direct")
    fleet.on("web1", "diff -r --no-dereference /etc /root/direct/etc")
    _status, listed = fleet.owner.request("GET", f"/{DIRECT}")
    names = re.findall(r"<Key>([^<]+)</Key>", listed)
    assert names
    assert all(name.startswith("web1/") for name in names)
    # restic's own locks went.
    assert not [name for name in names if "/locks/" in name]
    for kind in ("config", "keys/", "snapshots/", "index/", "data/"):
        path = f"/{DIRECT}/{next(name for name in names if name.startswith(f'web1/{kind}'))}"
        before = client.request("GET", path)
        assert before[0] == 200
        assert client.request("DELETE", path)[0] == 403
        _status, versions = client.request("GET", f"/{DIRECT}", {"versions": "", "prefix": path[len(DIRECT) + 2 :]})
        for version in re.findall(r"<VersionId>([^<]+)</VersionId>", versions):
            assert client.request("DELETE", path, {"versionId": version})[0] == 403
        assert client.request("GET", path) == before
    # Nor anything of another client's.
    assert fleet.owner.request("PUT", f"/{DIRECT}/web2/config", None, b"other")[0] == 200
    for method in ("GET", "PUT", "DELETE"):
        assert client.request(method, f"/{DIRECT}/web2/config", None, b"x" if method == "PUT" else b"")[0] == 403
    assert fleet.owner.request("GET", f"/{DIRECT}/web2/config")[1] == "other"


def test_a_quota_that_is_used_up_is_a_quota(fleet: Fleet) -> None:
    quota = "radosgw-admin quota {} --quota-scope=bucket --bucket " + BUCKET
    fleet.on("ceph1", f"{quota.format('set')} --max-objects 1 && {quota.format('enable')}")
    try:
        found = fleet.backup()
    finally:
        fleet.on("ceph1", quota.format("disable"))
    assert (found["outcome"], found["reason"]) == ("failed", "quota"), found
    assert fleet.backup()["outcome"] == "ok"


def test_credentials_that_are_taken_away_are_wrong_credentials(fleet: Fleet) -> None:
    before = fleet.objects()
    fleet.on("ceph1", "radosgw-admin user suspend --uid proxy")
    try:
        found = fleet.backup()
    finally:
        fleet.on("ceph1", "radosgw-admin user enable --uid proxy")
    assert (found["outcome"], found["reason"]) == ("failed", "wrong credentials"), found
    assert fleet.objects() == before
    assert fleet.backup()["outcome"] == "ok"
