#!/bin/sh
# Keeps one test host running: boot.sh NSPAWN-COMMAND…, started by hosts.py in a mount namespace of its own, so
# that the overlay, the loop devices and the view of the cgroups vanish with the last process, however it ends.
set -eu

if [ -n "$LAB_MEMORY" ] && [ -w /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    limit=/sys/fs/cgroup/memory/$LAB_CGROUP
    mkdir -p "$limit"
    echo "$LAB_MEMORY" >"$limit/memory.limit_in_bytes"
    echo $$ >"$limit/cgroup.procs"
fi

if [ "$LAB_SCOPE" = own ]; then
    # systemd gave this process a delegated scope.
    group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
else
    umount -R /sys/fs/cgroup 2>/dev/null || :
    mount -t cgroup2 none /sys/fs/cgroup
    group=/sys/fs/cgroup/$LAB_CGROUP
fi
mkdir -p "$group/keeper" "$group/guest"
echo $$ >"$group/keeper/cgroup.procs"

# `volatile`: no fsync reaches the disk; the work directory is fresh after an unclean end.
rm -rf "$LAB_DISK/work"
mkdir -p "$LAB_DISK/work" "$LAB_ROOT"
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_DISK/upper,workdir=$LAB_DISK/work,volatile" "$LAB_ROOT"

for image in "$LAB_DISK"/*.img; do
    [ -e "$image" ] || continue
    mount -o loop "$image" "${image%.img}"
    [ ! -e "$image.quota" ] || btrfs quota enable "${image%.img}"
done

guest=
trap '[ -z "$guest" ] || kill -TERM "$guest"' TERM
while :; do
    (
        echo 0 >"$group/guest/cgroup.procs"
        exec "$@"
    ) &
    guest=$!
    code=0
    wait "$guest" || code=$?
    while kill -0 "$guest" 2>/dev/null; do
        # The wait was interrupted by the order to stop.
        code=0
        wait "$guest" || code=$?
    done
    # 133: the guest asked for a reboot.
    [ "$code" -eq 133 ] || break
done
echo "$code" >"$LAB_ENDED"
