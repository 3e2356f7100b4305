#!/bin/bash
# What the User Mode Linux guest runs as its init. Its root is the host's own "/", read-only through hostfs, so
# every Debian tool of the host is there; whatever must be writable is a tmpfs. Not responsible for what is tested:
# it only obeys the driver (guest.py), which leaves numbered scripts in the shared folder and sends their numbers
# over the serial line. Invariant: each number is answered exactly once, with the exit status.
#
# From the kernel's command line: rig_share (the driver's folder on the host), rig_address (this guest's own).

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /mnt
mkdir -p /dev/shm /run/lock /run/share /run/kernel/lib
mount -t tmpfs tmpfs /dev/shm

# The host's own initiator database and names must neither be read nor written.
mount -t tmpfs tmpfs /etc/iscsi
mount -t hostfs hostfs /run/share -o "$rig_share"
cp /run/share/iscsid.conf /run/share/initiatorname.iscsi /etc/iscsi/

# Debian keeps this kernel's modules outside /lib/modules.
ln -s /usr/lib/uml/modules /run/kernel/lib/modules
for module in iscsi_tcp sd_mod; do
  modprobe -d /run/kernel "$module" || echo "rig: cannot load $module"
done

ip link set lo up
ip link set vec0 up
ip addr add "$rig_address" dev vec0

# What init itself has to say belongs into the guest's log; /dev/console is a channel that nobody reads.
exec 2>/dev/kmsg

# The exit status travels alone; what a script prints goes to a file of the shared folder, closed before the answer.
exec 3<>/dev/ttyS0
stty raw -echo <&3
echo ready >&3
while read -r number <&3; do
  bash "/run/share/$number.sh" </dev/null >"/run/share/$number.out" 2>&1 3>&-
  echo "$number $?" >&3
done
