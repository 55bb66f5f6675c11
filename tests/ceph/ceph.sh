#!/usr/bin/env bash
# One Ceph on one host, data in memory: monitor, manager, OSD, RADOS gateway on port 7480. ceph.sh ADDRESS
set -euo pipefail
address=$1
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq --yes --no-install-recommends ceph-mon ceph-osd ceph-mgr radosgw >/dev/null
fsid=$(cat /proc/sys/kernel/random/uuid)
osd=$(cat /proc/sys/kernel/random/uuid)
cat >/etc/ceph/ceph.conf <<END
[global]
fsid = $fsid
mon host = $address
auth cluster required = none
auth service required = none
auth client required = none
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
rgw rados pool pg num min = 1
osd objectstore = memstore
memstore device bytes = 2147483648
# The package's default is a relative path.
osd class dir = /usr/lib/x86_64-linux-gnu/rados-classes
# What changes is seen at once, and not after the ten minutes of a cache.
rgw bucket quota ttl = 0
rgw bucket quota soft threshold = 0
rgw user quota bucket sync interval = 1
rgw cache enabled = false
END
mkdir -p /var/lib/ceph/mon/ceph-a /var/lib/ceph/osd/ceph-0 /var/lib/ceph/mgr/ceph-x /run/ceph
monmaptool --create --add a "$address" --fsid "$fsid" /tmp/monmap >/dev/null
ceph-mon --mkfs -i a --monmap /tmp/monmap
systemd-run -q --unit lab-mon ceph-mon -f -i a
timeout 60 ceph -s >/dev/null
systemd-run -q --unit lab-mgr ceph-mgr -f -i x
ceph osd new "$osd" >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd"
# Now and then it asks the monitor before it has learnt its identity, is refused, and aborts.
systemd-run -q --unit lab-osd -p Restart=on-failure -p RestartSec=1 ceph-osd -f -i 0
systemd-run -q --unit lab-rgw radosgw -f -n client.rgw.a --rgw-frontends "beast port=7480"
for _attempt in $(seq 120); do
  (exec 3<>/dev/tcp/127.0.0.1/7480) 2>/dev/null && break
  sleep 0.5
done
radosgw-admin user create --uid owner --display-name owner --access-key OWNER --secret owner-secret >/dev/null
radosgw-admin user create --uid proxy --display-name proxy --access-key PROXY --secret canary-5e1d-ceph >/dev/null
radosgw-admin user create --uid web1 --display-name web1 --access-key WEB1 --secret canary-7b2f-ceph >/dev/null
