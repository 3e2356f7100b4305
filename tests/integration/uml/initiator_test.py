#!/usr/bin/env python3
"""An initiator that nobody here wrote against a mirrored pair: Linux 6.1 (User Mode Linux) with open-iscsi.

Discovers, logs in without and with digests, makes ext4, runs fio with verification; then the primary dies by SIGKILL
while fio writes, the peer is promoted, the virtual IP moves with the role, and nothing acknowledged may be missing; and a login
at the Secondary's own portal ends at the Primary. One boot for all.
If this fails, a real host would lose data, hang, or not log in at all.

Needs root (namespaces, a tap). Prints one line per step; ends with exit status 0 or 1, everything removed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time

from guest import Guest, NoGuestHere
from lab import Lab, TestFailure, wait_until
from replblk_target import ReplblkPair
from tgt_target import TgtPair

PORTAL_ADDRESS = "10.77.0.100"
GUEST_ADDRESS = "10.77.0.50/24"
NODE_ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
WHOLE_TEST_S = 280
NOT_HERE = 77  # what ctest takes for "skipped"
TOOLS = ("linux.uml", "iscsid", "iscsiadm", "modprobe", "mkfs.ext4", "e2fsck", "fio", "ip", "arping", "setpriv")

# What an administrator would set; short NOPs so that a dead target is noticed within the test.
ISCSID_CONF = """\
node.startup = manual
node.leading_login = No
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.err_timeo.tgt_reset_timeout = 30
node.session.initial_login_retry_max = 8
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
node.session.scan = auto
"""

# The guest has one processor and dear system calls: threads instead of processes, small files, few fio starts.
FIO_COMMON = ("--thread --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 --verify_state_save=0"
              " --randseed=7 --directory=/mnt/volume")
FIO_SMALL = f"--name=small --rw=randwrite --bs=4k --size=4M --iodepth=16 {FIO_COMMON}"
FIO_LARGE = f"--name=large --rw=write --bs=256k --size=16M --iodepth=4 {FIO_COMMON}"
# Slowed down, so that the primary dies in its midst on a fast machine too.
FIO_THROUGH_FAILOVER = f"--name=through --rw=randwrite --bs=4k --size=16M --iodepth=16 --rate_iops=400 {FIO_COMMON}"

# One write after the other: the longest one is the pause. Its file is read back with the others.
FIO_THROUGH_SWITCHOVER = f"--name=switched --rw=randwrite --bs=4k --size=4M --iodepth=1 --rate_iops=100 {FIO_COMMON}"
# A session's DefaultTime2Wait, which Linux waits after a reset that nothing announced, is 2 s.
SWITCHOVER_PAUSE_MAX_S = 1.9
# Less: the job did not write through it.
SWITCHOVER_PAUSE_MIN_S = 0.08

# Files of known content, each on the list only after fsync has returned: the application's view of "acknowledged".
LEDGER = """\
mkdir -p /mnt/volume/ledger
number=0
while [ ! -e /run/ledger-stop ]; do
  number=$((number + 1))
  head -c 20000 /dev/urandom >/run/page
  dd if=/run/page of=/mnt/volume/ledger/$number bs=20000 conv=fsync status=none || exit 1
  sum=$(sha256sum </run/page)
  echo "${sum%% *}  /mnt/volume/ledger/$number" >>/run/share/ledger
done
"""


class Story:
    """The steps, in the order in which they are run."""

    def __init__(self, lab, target, namespaces):
        self.lab = lab
        self.target = target
        self.namespaces = namespaces
        self.guest = Guest(lab, GUEST_ADDRESS)
        self._started = time.monotonic()

    def step(self, sentence):
        print(f"[{time.monotonic() - self._started:6.1f} s] {sentence}", flush=True)

    def tell(self):
        self.step("start the pair")
        self.target.start()
        self.boot()
        self.step("discover")
        _, found = self.guest.run(f"iscsiadm -m discovery -t sendtargets -p {PORTAL_ADDRESS}", 20)
        if not re.search(rf"^{PORTAL_ADDRESS}:3260,\d+ {self.target.iqn}$", found, re.M):
            raise TestFailure(f"discovery does not name {self.target.iqn} at {PORTAL_ADDRESS}:\n{found}")

        self.login(digests="None")
        self.step(f"make ext4 on /dev/{self.disk}, fio with verification")
        self.guest.run(f"mkfs.ext4 -q -F /dev/{self.disk}", 60)
        self.mount()
        self.fio(FIO_SMALL, FIO_LARGE)
        self.unmount_and_logout()
        if self.target.moves_address:
            self.follow_redirect()

        self.login(digests="CRC32C")
        if self.target.moves_address:
            self.switch_over_under_load("b", "by the virtual IP")
        else:
            self.mount()
        self.step("read back what the session without digests wrote")
        self.guest.run("echo 3 >/proc/sys/vm/drop_caches")
        self.fio(FIO_SMALL, FIO_LARGE, extra="--verify_only")
        self.fail_over_under_load()
        self.unmount_and_logout()

        self.login(digests="CRC32C")
        self.check_file_system()
        self.unmount_and_logout()
        self.check_kernel_log()
        self.step("done")

    def boot(self):
        self.step("boot the initiator")
        self.guest.write_file("iscsid.conf", ISCSID_CONF)
        self.guest.write_file("initiatorname.iscsi", "InitiatorName=iqn.2026-11.org.example:initiator\n")
        self.guest.boot(90)
        self.guest.run("iscsid && mkdir /mnt/volume")

    def login(self, digests):
        self.step(f"log in, digests {digests}")
        node = f"iscsiadm -m node -T {self.target.iqn} -p {PORTAL_ADDRESS}"
        self.guest.run(f"""
            {node} -o update -n 'node.conn[0].iscsi.HeaderDigest' -v {digests} &&
            {node} -o update -n 'node.conn[0].iscsi.DataDigest' -v {digests} &&
            {node} --login""", 40)
        _, negotiated = self.guest.run("iscsiadm -m session -P 2")
        for key in ("HeaderDigest", "DataDigest"):
            if not re.search(rf"{key}: {digests}\s", negotiated):
                raise TestFailure(f"{key} was not negotiated to {digests}:\n{negotiated}")
        self.disk = self.find_disk()

    def find_disk(self):
        _, disk = self.guest.run("""
            for try in {1..100}; do
              cd /sys/block; set -- sd*
              [ -b /dev/$1 ] && echo $1 && exit
              sleep 0.1
            done
            echo 'no disk appeared'; dmesg | tail -n 20; exit 1""", 30)
        return disk.strip()

    def follow_redirect(self):
        """Without a virtual IP: the Secondary's portal names both nodes, and a login there ends at the Primary."""
        primary, secondary = NODE_ADDRESSES["a"], NODE_ADDRESSES["b"]
        self.step("log in at the Secondary's portal")
        _, found = self.guest.run(f"iscsiadm -m discovery -t sendtargets -p {secondary}", 20)
        for address in (primary, secondary):
            if f"{address}:3260," not in found:
                raise TestFailure(f"discovery at {secondary} does not name {address}:\n{found}")
        node = f"iscsiadm -m node -T {self.target.iqn} -p {secondary}"
        self.guest.run(f"{node} --login", 40)
        _, session = self.guest.run("iscsiadm -m session -P 1")
        if not re.search(rf"Current Portal: {primary}:3260.*Persistent Portal: {secondary}:3260", session, re.S):
            raise TestFailure(f"a login at {secondary} was not sent to {primary}:\n{session}")
        self.disk = self.find_disk()
        self.switch_over_under_load("a", "by the redirect")
        self.guest.run("umount /mnt/volume", 60)
        self.guest.run(f"{node} --logout", 30)

    def mount(self):
        self.guest.run(f"mount /dev/{self.disk} /mnt/volume", 20)

    def fio(self, *jobs, extra=""):
        self.guest.run("fio " + " ".join(f"{job} {extra}" for job in jobs), 90)

    def unmount_and_logout(self):
        self.step("unmount, log out")
        self.guest.run("umount /mnt/volume", 60)
        self.guest.run(f"iscsiadm -m node -T {self.target.iqn} -p {PORTAL_ADDRESS} --logout", 30)
        _, left = self.guest.run("iscsiadm -m session", check=False)
        if "No active sessions" not in left:
            raise TestFailure(f"a session is left after the logout:\n{left}")

    def switch_over_under_load(self, node, way):
        """The node that gives the role up tells the initiator that it may come back at once."""
        self.mount()
        self.fio(FIO_THROUGH_SWITCHOVER, extra="--create_only=1")
        self.guest.run("sync", 30)
        before = self.sectors_written()
        job = f"switched-from-{node}"
        self.start_in_background(job, f"fio --output-format=json --output=/run/share/{job}.json {FIO_THROUGH_SWITCHOVER}")
        wait_until("fio writes", lambda: self.sectors_written() > before + 800, 60)
        time.sleep(3)  # The file system writes too; the job takes 1 to 2 s to begin, and writes for 10 s.
        self.target.switch_over(node)
        self.finish_in_background(job, 60)
        pause_s = json.loads(self.guest.read_file(f"{job}.json"))["jobs"][0]["write"]["clat_ns"]["max"] / 1e9
        self.step(f"switched over from {node}, {way}: the longest write took {pause_s:.2f} s")
        if not SWITCHOVER_PAUSE_MIN_S < pause_s < SWITCHOVER_PAUSE_MAX_S:
            raise TestFailure(f"a switchover, {way}, took {pause_s:.2f} s")

    def fail_over_under_load(self):
        self.step("write through the failover: fio, and files each with fsync")
        self.start_in_background("ledger", LEDGER)
        wait_until("3 files written with fsync", lambda: self.ledger_length() >= 3, 60)
        before = self.sectors_written()
        self.start_in_background("through", f"fio {FIO_THROUGH_FAILOVER}")
        wait_until("fio writes", lambda: self.sectors_written() > before + 2000, 60)

        killed = time.monotonic()
        acknowledged = self.ledger_length()
        self.target.kill_primary()
        if self.guest.read_file("through.status"):
            raise TestFailure("fio had ended before the primary was killed:\n" + self.guest.read_file("through.log"))
        self.step(f"the primary is dead ({acknowledged} files acknowledged); promote the peer, move the address")
        self.target.promote_survivor()
        if not self.target.moves_address:
            self.move_address()
        wait_until("a write is acknowledged by the survivor",
                   lambda: self.ledger_length() >= acknowledged + 2, 60)
        self.step(f"writes go on, {time.monotonic() - killed:.1f} s after the kill")

        self.finish_in_background("through", 90)
        self.guest.run("touch /run/ledger-stop")
        self.finish_in_background("ledger", 60)

    def start_in_background(self, job, script):
        """Its output goes to <job>.log of the shared folder, its exit status to <job>.status when it ends."""
        self.guest.write_file(f"{job}.sh", script)
        self.guest.run(f"""
            {{ bash /run/share/{job}.sh >/run/share/{job}.log 2>&1; echo $? >/run/share/{job}.status; }} </dev/null &""")

    def finish_in_background(self, job, timeout_s):
        status = wait_until(f"{job} ends", lambda: self.guest.read_file(f"{job}.status"), timeout_s)
        if status.strip() != "0":
            raise TestFailure(f"{job} through the failover: exit {status}" + self.guest.read_file(f"{job}.log"))

    def ledger_length(self):
        return self.guest.read_file("ledger").count("\n")

    def sectors_written(self):
        _, text = self.guest.run(f"cat /sys/block/{self.disk}/stat")
        return int(text.split()[6])

    def move_address(self):
        """By hand, for a target without a virtual IP of its own. The ARP announcement is what makes the
        initiator forget the dead node's hardware address at once."""
        self.lab.ip(self.namespaces["a"], f"addr del {PORTAL_ADDRESS}/24 dev eth0")
        self.lab.ip(self.namespaces["b"], f"addr add {PORTAL_ADDRESS}/24 dev eth0")
        self.lab.command(["arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", PORTAL_ADDRESS], self.namespaces["b"],
                         check=False)

    def check_file_system(self):
        self.step("fsck, then compare every acknowledged block and file")
        self.guest.run(f"e2fsck -f -n /dev/{self.disk}", 60)
        self.mount()
        through = [FIO_THROUGH_FAILOVER] + ([FIO_THROUGH_SWITCHOVER] if self.target.moves_address else [])
        self.fio(FIO_SMALL, FIO_LARGE, *through, extra="--verify_only")
        _, verdict = self.guest.run("sha256sum --check --quiet /run/share/ledger && wc -l </run/share/ledger", 60)
        self.step(f"{verdict.strip()} acknowledged files are intact")

    def check_kernel_log(self):
        _, log = self.guest.run("dmesg")
        bad = [line for line in log.splitlines()
               if re.search(r"I/O error|EXT4-fs (error|warning)|Buffer I/O|Remounting filesystem|BUG:", line)]
        if bad:
            raise TestFailure("the initiator's kernel complained:\n" + "\n".join(bad))


def make_target(options, lab, namespaces):
    if options.target == "replblk":
        return ReplblkPair(lab, namespaces, NODE_ADDRESSES, PORTAL_ADDRESS, options.replblkd, options.replblkctl)
    return TgtPair(lab, namespaces, mirrored=options.target == "tgt")


def on_signal(number, _frame):
    raise TestFailure("the watchdog ended the test" if number == signal.SIGALRM else f"signal {number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replblkd", help="the daemon to test")
    parser.add_argument("--replblkctl", help="its control program")
    parser.add_argument("--target", choices=("replblk", "tgt", "tgt-unmirrored"), default="replblk",
                        help="tgt checks the rig itself; tgt-unmirrored must fail")
    parser.add_argument("--logs", help="a folder for the logs of the guest and of the target")
    options = parser.parse_args()
    if options.target == "replblk" and not (options.replblkd and options.replblkctl):
        parser.error("--replblkd and --replblkctl are needed")

    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (tools/packages.txt names the packages)")
    if os.geteuid() != 0:
        sys.exit("needs root: it makes network namespaces and a tap device")

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    signal.alarm(WHOLE_TEST_S)
    lab = Lab()
    passed = False
    try:
        namespaces = {name: lab.add_host(name, [f"{address}/24"]) for name, address in NODE_ADDRESSES.items()}
        target = make_target(options, lab, namespaces)
        if not target.moves_address:
            lab.ip(namespaces["a"], f"addr add {PORTAL_ADDRESS}/24 dev eth0")
        story = Story(lab, target, namespaces)
        try:
            story.tell()
            passed = True
        except NoGuestHere as reason:
            print(f"SKIPPED: {reason}")
            return NOT_HERE
        except (TestFailure, OSError) as failure:
            print(f"FAILED: {failure}")
            print(f"--- the pair\n{target.describe()}")
            for name in lab.log_names():
                print(f"--- the end of {name}.log\n{lab.log_tail(name)}")
    finally:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if options.logs:
            lab.save_logs(options.logs)
        lab.close()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
