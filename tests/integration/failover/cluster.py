"""A pair of real daemons in network namespaces of their own, beside an etcd, with an initiator that writes all the time.

Each node's disk is a file on a small file system of its own, so that it can hang. Needs root. Not responsible for what happens to them.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.realpath(__file__))
TREE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "disks"), os.path.join(os.path.dirname(HERE), "uml"), os.path.join(TREE, "tools")]

from demonstration.initiator import AsyncMessage, Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, DemoError, Pair, is_in_sync, wait_until  # noqa: E402
from file_systems import make_file_system, unmount_all  # noqa: E402
from lab import Lab, TestFailure, enter_namespace  # noqa: E402

OWN_MOUNTS = "--in-own-mounts"
ADDRESSES = {"a": "10.79.0.1", "b": "10.79.0.2"}
ETCD_ADDRESSES, INITIATOR_ADDRESS, VIRTUAL_ADDRESS = ("10.79.0.9", "10.79.0.10", "10.79.0.11"), "10.79.0.100", "10.79.0.50"
ETCD_ADDRESS = ETCD_ADDRESSES[0]
VOLUME_BYTES = 32 << 20
SMALL_VOLUME_BYTES = 8 << 20
FILE_SYSTEM_BYTES = 64 << 20
DISK_TIMEOUT_MS = 1000  # the shortest; the default leaves the decision to stall_timeout_ms
BLOCKS = 512  # of 4 KiB: what the load writes to
STEP = 8
# An initiator that gets no answer for so long looks for the target elsewhere. open-iscsi takes longer by default; what is
# measured here is the target.
PATIENCE_S = 0.3


class Writer(threading.Thread):
    """One write at a time, each block with the number of the write; goes to where an answer comes from, in turn."""

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.addresses = addresses
        self.patience_s = PATIENCE_S
        self._stop_asked = threading.Event()
        self._may_write, self._is_writing = threading.Event(), threading.Lock()
        self._may_write.set()
        self.answered, self.possible = {}, {}
        self.count, self.pause_s, self.problem = 0, 0.0, None
        self.last = time.monotonic()

    def run(self):
        number, place = 0, 0
        while not self._stop_asked.is_set():
            try:
                initiator = Initiator(self.addresses[place], 3260, IQN, "iqn.2026-11.org.example:failover", self.patience_s, b"\x80\1\2\3\0\1")
            except InitiatorError:
                place = (place + 1) % len(self.addresses)
                time.sleep(0.01)
                continue
            try:
                while not self._stop_asked.is_set():
                    self._may_write.wait()
                    initiator.timeout_s = self.patience_s
                    number += 1
                    with self._is_writing:
                        if not self.write(initiator, number):
                            self.problem = f"write {number} by way of {self.addresses[place]}: refused"
                            return
            except InitiatorError:
                initiator.close()
                place = (place + 1) % len(self.addresses)

    def write(self, initiator, number):
        block = number * 7 % BLOCKS
        self.possible.setdefault(block, set()).add(number)
        done = wait_for_answer(initiator, initiator.write(block * STEP, number.to_bytes(8, "little") * 512))
        if done.status != 0:
            return False
        self.answered[block], self.possible[block] = number, {number}
        self.count += 1
        now = time.monotonic()
        self.pause_s, self.last = max(self.pause_s, now - self.last), now
        return True

    @contextlib.contextmanager
    def held(self):
        """Nothing is written meanwhile."""
        self._may_write.clear()
        try:
            with self._is_writing:
                yield
        finally:
            self.last = time.monotonic()
            self._may_write.set()

    def measure(self, what, action, limit_s, patience_s=PATIENCE_S):
        self.patience_s, before = patience_s, self.count
        wait_until(f"writes are answered before: {what}", lambda: self.count > before + 1 or self.problem, 20, 0.01)
        self.pause_s, self.last = 0.0, time.monotonic()
        action()
        before = self.count
        wait_until(f"writes are answered after: {what}", lambda: self.count > before + 50 or self.problem, limit_s + 20)
        time.sleep(0.2)
        if self.problem:
            raise TestFailure(self.problem)
        return max(self.pause_s, time.monotonic() - self.last)

    def finish(self):
        self._stop_asked.set()
        self.join(20)
        if self.problem:
            raise TestFailure(self.problem)


def wait_for_answer(initiator, tag):
    """Like open-iscsi: an asynchronous message only announces that the connection ends."""
    while True:
        try:
            return initiator.wait(tag)
        except AsyncMessage:
            continue


class Reader(threading.Thread):
    """Reads what a Writer writes, by a session of its own, which it keeps for as long as it is answered: a node that answers reads though
    the other one serves is found. No read may return less than what had been answered to the Writer before it was sent."""

    PATIENCE_S = 10

    def __init__(self, writer):
        super().__init__(daemon=True)
        self._writer, self._stop_asked = writer, threading.Event()
        self.count, self.problem = 0, None

    def run(self):
        place = 0
        while not self._stop_asked.is_set():
            address = self._writer.addresses[place]
            try:
                initiator = Initiator(address, 3260, IQN, "iqn.2026-11.org.example:failover-reader", PATIENCE_S, b"\x80\1\2\3\0\2")
                initiator.timeout_s = self.PATIENCE_S
                while not self._stop_asked.is_set():
                    self.problem = self.problem or self.read(initiator, address)
                    time.sleep(0.001)
            except InitiatorError:
                place = (place + 1) % len(self._writer.addresses)
                time.sleep(0.01)

    def read(self, initiator, address):
        block = self.count * 11 % BLOCKS
        floor = self._writer.answered.get(block, 0)
        done = wait_for_answer(initiator, initiator.read(block * STEP, STEP))
        if done.status != 0:
            return f"read of block {block} by way of {address}: {done}"
        self.count += 1
        return stale(block, floor, int.from_bytes(done.data[:8], "little"), address)

    def finish(self):
        self._stop_asked.set()
        self.join(20)
        if self.problem:
            raise TestFailure(self.problem)


def stale(block, floor, found, address):
    """Numbers only grow, in each block. None: it is not."""
    return f"STALE: block {block} by way of {address} holds write {found}, and write {floor} had been answered before" if found < floor else None


class Cluster:
    def __init__(self, lab, pair, addresses, mounts, etcds, told):
        """`addresses`: where initiators look; `mounts`: of the nodes' disks; `etcds`: their processes; `told`: what handlers write to."""
        self.lab, self.pair, self.addresses, self.mounts, self.etcds, self._told = lab, pair, addresses, mounts, etcds, told
        self.etcd = etcds[0] if etcds else None

    def primary(self):
        return next((node for node in "ab" if (self.pair.status(node) or {}).get("role") == "Primary"), None)

    def is_healthy(self):
        return all(is_in_sync(self.pair.status(node)) for node in "ab") and self.primary() is not None

    def told(self):
        """Each event that a handler was told, and by which node."""
        if not os.path.exists(self._told):
            return []
        with open(self._told, encoding="utf-8") as file:
            by_address = {address: node for node, address in ADDRESSES.items()}
            return [(event, by_address[address]) for event, address in (line.split() for line in file)]

    def check_answered(self, writer):
        initiator = Initiator(ADDRESSES[self.primary()], 3260, IQN, "iqn.2026-11.org.example:failover-check")
        for block, possible in writer.possible.items():
            done = initiator.wait(initiator.read(block * STEP, STEP))
            number = int.from_bytes(done.data[:8], "little")
            if done.status != 0 or number not in possible | {writer.answered.get(block, 0)}:
                raise TestFailure(f"block {block} holds write {number}, not {writer.answered.get(block)} (possible {possible})")
        initiator.log_out()

    def compare_copies(self, length):
        with open(self.pair.disk("a"), "rb") as one, open(self.pair.disk("b"), "rb") as two:
            first, second = one.read(length), two.read(length)
        if first != second:
            raise TestFailure(f"the two copies differ, first at byte {next(place for place in range(length) if first[place] != second[place])}")

    def check(self, writer):
        """Ends both daemons."""
        self.check_answered(writer)
        length = self.pair.status("a")["devices"][0]["size"] * 1024
        for node in "ab":
            if not self.pair.stop(node, 20):
                raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        self.compare_copies(length)
        print(f"{writer.count} writes were answered; all of them are there, and both copies are identical", flush=True)


def etcd_url(address):
    return f"http://{address}:2379"


def call_etcd(address, path, timeout_s=2, **body):
    """None: no answer."""
    try:
        request = urllib.request.Request(f"{etcd_url(address)}/v3/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
    except (OSError, urllib.error.URLError):
        return None


def start_etcds(lab, folder, count):
    """Members of one cluster, each a host of its own: e0, e1 …"""
    addresses = ETCD_ADDRESSES[:count]
    members = ",".join(f"e{number}=http://{address}:2380" for number, address in enumerate(addresses))
    processes = []
    for number, address in enumerate(addresses):
        name = f"e{number}"
        lab.add_host(name, [f"{address}/24"])
        processes.append(lab.start(
            f"etcd-{name}", ["etcd", "--name", name, "--data-dir", os.path.join(folder, f"etcd-{name}"), "--log-level", "error", "--logger", "zap",
                             "--listen-client-urls", etcd_url(address), "--advertise-client-urls", etcd_url(address),
                             "--listen-peer-urls", f"http://{address}:2380", "--initial-advertise-peer-urls", f"http://{address}:2380",
                             "--initial-cluster", members], f"{lab.tag}-{name}"))
    for address in addresses:
        wait_until("etcd answers", lambda at=address: call_etcd(at, "kv/range", key="AA==") is not None, 30)
    endpoints = " ".join(f'endpoint: "{etcd_url(address)}"' for address in addresses)
    return processes, f"arbiter {{ etcd {{ {endpoints} }} }}"


def parse_in_own_mounts(parser):
    """The options; the program has been started anew in a mount namespace of its own, as root."""
    parser.add_argument(OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it makes network namespaces")
    if not options.in_own_mounts:
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", os.path.realpath(sys.argv[0]), *sys.argv[1:],
                              OWN_MOUNTS])
    return options


def add_resources(pair, count):
    """As many as that with the first one: like it, but small."""
    with open(pair.config, encoding="utf-8") as file:
        first = file.read().partition("\nresource {")[2]
    for number in range(2, count + 1):
        text = first.replace('name: "demo"', f'name: "demo-{number}"').replace(IQN, f"{IQN}-{number}")
        for node in ADDRESSES:
            text = text.replace(pair.disk(node), f"{pair.disk(node)}-{number}")
            with open(f"{pair.disk(node)}-{number}", "wb") as file:
                file.truncate(SMALL_VOLUME_BYTES)
        with open(pair.config, "a", encoding="utf-8") as file:
            file.write("resource {" + text)
    for node in ADDRESSES:
        for number in range(2, count + 1):
            pair.ctl(node, "create-md", f"demo-{number}")


def run_in_lab(binaries, folder, tell, arbiter="etcd", lease_ms=1000, has_virtual_ip=False, resources=1, etcd_members=1, edit=None):
    """tell(Cluster), with both daemons started; the virtual IP is the first resource's. edit(Lab, text of the configuration) is what it is
    to be. Returns the program's exit code."""
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
    os.makedirs(folder, exist_ok=True)
    place = tempfile.mkdtemp(prefix="etcd-", dir=folder)
    lab, pair, etcds = Lab(), None, []
    try:
        for node, address in ADDRESSES.items():
            lab.add_host(node, [f"{address}/24"])
        lab.ip(lab.lan, f"addr add {INITIATOR_ADDRESS}/24 dev br0")
        lab.ip(lab.lan, "link set lo up")
        enter_namespace(lab.lan)
        # At least five heartbeats to a lease.
        settings = f"heartbeat {{ lease_ms: {lease_ms} interval_ms: {min(100, lease_ms // 6)} }} "
        if arbiter == "etcd":
            etcds, arbiter_settings = start_etcds(lab, place, etcd_members)
            settings += arbiter_settings
        elif arbiter == "ping":
            settings += f'arbiter {{ ping {{ address: "{INITIATOR_ADDRESS}" }} }}'
        pair = Pair(binaries, os.path.join(folder, "nodes"), VOLUME_BYTES, 3260, 7789, addresses=ADDRESSES,
                    namespaces={node: f"{lab.tag}-{node}" for node in ADDRESSES}, cluster_settings=settings, death_signal="KILL")
        mounts = {node: os.path.join(place, node) for node in ADDRESSES}
        for node, mount in mounts.items():
            make_file_system(mount, FILE_SYSTEM_BYTES)
            os.symlink(os.path.join(mount, "disk"), pair.disk(node))
        pair.create()
        add_resources(pair, resources)
        with open(pair.config, encoding="utf-8") as file:
            text = file.read()
        text = text.replace("io_mode: direct", f"io_mode: direct timeout_ms: {DISK_TIMEOUT_MS}")
        told = os.path.join(place, "handlers")
        handlers = " ".join(f'{event}: "echo {event} $DRBD_MY_ADDRESS >> {told}"' for event in ("pri_lost", "quorum_lost"))
        text = text.replace("resource {", f"resource {{ handlers {{ {handlers} }}", 1)
        if has_virtual_ip:
            text = text.replace("resource {", f'resource {{ virtual_ip {{ address: "{VIRTUAL_ADDRESS}/24" device: "eth0" }}', 1)
            text = text.replace("target {", f'target {{ portal {{ address: "{VIRTUAL_ADDRESS}" }}', 1)
        if edit:
            text = edit(lab, text)
        with open(pair.config, "w", encoding="utf-8") as file:
            file.write(text)
        for node in "ab":
            pair.start(node)
        tell(Cluster(lab, pair, [VIRTUAL_ADDRESS] if has_virtual_ip else list(ADDRESSES.values()), mounts, etcds, told))
        return 0
    except (TestFailure, DemoError, InitiatorError, OSError) as failure:
        print(f"FAILED: {failure}")
        for node in "ab" if pair else "":
            print(f"--- {node}\n{pair.try_ctl(node, 'status')[1]}\n{pair.log_tail(node)}")
        return 1
    finally:
        if pair:
            pair.close()
        lab.close()
        unmount_all(place)
        shutil.rmtree(place, ignore_errors=True)
