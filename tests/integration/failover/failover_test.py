#!/usr/bin/env python3
"""How long initiators see nothing when the role moves, with real daemons and a real etcd in network namespaces of their own.

A node's daemon is killed or stopped, its cable is pulled, the other node's daemon is killed, the role is switched over. Each round
measures the longest time between two answered writes, then heals, and waits until both copies are UpToDate. No answered write may be
lost and both copies must be identical at the end. By hand with --rounds 20 for figures; in CI one round of each, with wide limits.
Needs root; runs in a mount namespace of its own.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
TREE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "disks"), os.path.join(os.path.dirname(HERE), "uml"), os.path.join(TREE, "tools")]

from demonstration.initiator import Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, DemoError, Pair, is_in_sync, other, wait_until  # noqa: E402
from lab import Lab, TestFailure  # noqa: E402

OWN_MOUNTS = "--in-own-mounts"
ADDRESSES = {"a": "10.79.0.1", "b": "10.79.0.2"}
ETCD_ADDRESS, INITIATOR_ADDRESS, VIRTUAL_ADDRESS = "10.79.0.9", "10.79.0.100", "10.79.0.50"
VOLUME_BYTES = 32 << 20
BLOCKS = 512  # of 4 KiB: what the load writes to
STEP = 8
# An initiator that gets no answer for so long looks for the target elsewhere. open-iscsi takes longer by default; what is
# measured here is the target.
PATIENCE_S = 0.3
# What CI holds it to, in seconds: a busy machine adds to each of them. The figures are for people.
LIMITS = {"kill the primary": 6, "stop the primary's process": 6, "pull the primary's cable": 6, "kill the secondary": 3,
          "switch over": 3, "stop the primary's daemon in order": 3}


class Writer(threading.Thread):
    """One write at a time, each block with the number of the write; goes to where an answer comes from, in turn."""

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.addresses = addresses
        self._stop_asked = threading.Event()
        self.answered, self.possible = {}, {}
        self.count, self.pause_s, self.problem = 0, 0.0, None
        self.last = time.monotonic()

    def run(self):
        number, place = 0, 0
        while not self._stop_asked.is_set():
            try:
                initiator = Initiator(self.addresses[place], 3260, IQN, "iqn.2026-11.org.example:failover", PATIENCE_S, b"\x80\1\2\3\0\1")
            except InitiatorError:
                place = (place + 1) % len(self.addresses)
                time.sleep(0.01)
                continue
            try:
                while not self._stop_asked.is_set():
                    number += 1
                    block = number * 7 % BLOCKS
                    self.possible.setdefault(block, set()).add(number)
                    done = initiator.wait(initiator.write(block * STEP, number.to_bytes(8, "little") * 512))
                    if done.status != 0:
                        self.problem = f"write {number} by way of {self.addresses[place]}: {done}"
                        return
                    self.answered[block], self.possible[block] = number, {number}
                    self.count += 1
                    now = time.monotonic()
                    self.pause_s, self.last = max(self.pause_s, now - self.last), now
            except InitiatorError:
                initiator.close()
                place = (place + 1) % len(self.addresses)

    def measure(self, what, action, limit_s):
        self.pause_s, self.last, before = 0.0, time.monotonic(), self.count
        action()
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


class Trial:
    def __init__(self, lab, pair, addresses):
        self.lab, self.pair, self.addresses = lab, pair, addresses

    def status(self, node):
        return self.pair.status(node)

    def primary(self):
        return next((node for node in "ab" if (self.status(node) or {}).get("role") == "Primary"), None)

    def is_healthy(self):
        return all(is_in_sync(self.status(node)) for node in "ab") and self.primary() is not None

    def heal(self):
        for node in "ab":
            self.lab.ip(self.lab.lan, f"link set to-{node} up")
            if self.pair.is_running(node):
                os.kill(self.pair.pid(node), signal.SIGCONT)
            else:
                self.pair.start(node)
        wait_until("both are UpToDate", self.is_healthy, 60)
        # A lease, and what the last resync left.
        time.sleep(0.5)

    def kill(self, node):
        self.pair.kill(node)

    def actions(self):
        primary = self.primary()
        return {"kill the primary": lambda: self.kill(primary),
                "stop the primary's process": lambda: os.kill(self.pair.pid(primary), signal.SIGSTOP),
                "pull the primary's cable": lambda: self.lab.ip(self.lab.lan, f"link set to-{primary} down"),
                "kill the secondary": lambda: self.kill(other(primary)),
                "switch over": lambda: self.pair.ctl(primary, "switchover"),
                "stop the primary's daemon in order": lambda: self.pair.stop(primary, 20)}

    def run(self, rounds, names):
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.is_healthy, 60)
        writer = Writer(self.addresses)
        writer.start()
        wait_until("writes are answered", lambda: writer.count > 200, 20)
        for name in names:
            pauses = []
            for _ in range(rounds):
                pauses.append(writer.measure(name, self.actions()[name], LIMITS[name]))
                self.heal()
            worst = max(pauses)
            print(f"{name:36} {rounds:3} rounds: median {statistics.median(pauses) * 1000:6.0f} ms, worst {worst * 1000:6.0f} ms", flush=True)
            if worst > LIMITS[name]:
                raise TestFailure(f"{name}: {worst:.2f} s without an answer")
        writer.finish()
        self.check(writer)

    def check(self, writer):
        initiator = Initiator(ADDRESSES[self.primary()], 3260, IQN, "iqn.2026-11.org.example:failover-check")
        for block, possible in writer.possible.items():
            done = initiator.wait(initiator.read(block * STEP, STEP))
            number = int.from_bytes(done.data[:8], "little")
            if done.status != 0 or number not in possible | {writer.answered.get(block, 0)}:
                raise TestFailure(f"block {block} holds write {number}, not {writer.answered.get(block)} (possible {possible})")
        initiator.log_out()
        length = self.status("a")["devices"][0]["size"] * 1024
        for node in "ab":
            if not self.pair.stop(node, 20):
                raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        with open(self.pair.disk("a"), "rb") as one, open(self.pair.disk("b"), "rb") as two:
            if one.read(length) != two.read(length):
                raise TestFailure("the two copies differ")
        print(f"{writer.count} writes were answered; all of them are there, and both copies are identical", flush=True)


def enter_namespace(name):
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if libc.setns(descriptor, 0) != 0:
        raise TestFailure(f"setns {name}: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


def start_etcd(lab, folder):
    lab.add_host("e", [f"{ETCD_ADDRESS}/24"])
    url = f"http://{ETCD_ADDRESS}:2379"
    lab.start("etcd", ["etcd", "--name", "m", "--data-dir", os.path.join(folder, "etcd"), "--log-level", "error", "--logger", "zap",
                       "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", "http://127.0.0.1:2380",
                       "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "m=http://127.0.0.1:2380"],
              f"{lab.tag}-e")

    def answers():
        try:
            request = urllib.request.Request(url + "/v3/kv/range", json.dumps({"key": "AA=="}).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False
    wait_until("etcd answers", answers, 30)
    return f'arbiter {{ etcd {{ endpoint: "{url}" }} }}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    parser.add_argument("--rounds", type=int, default=1, help="of each")
    parser.add_argument("--arbiter", choices=("etcd", "none"), default="etcd")
    parser.add_argument("--virtual-ip", action="store_true", help="initiators know it only, not the nodes' addresses")
    parser.add_argument("--lease-ms", type=int, default=1000)
    parser.add_argument("--only", action="append", choices=LIMITS, help="this one (again for more)")
    parser.add_argument(OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it makes network namespaces")
    if not options.in_own_mounts:
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", os.path.realpath(__file__), *sys.argv[1:],
                              OWN_MOUNTS])
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
    os.makedirs(options.folder, exist_ok=True)
    place = tempfile.mkdtemp(prefix="etcd-", dir=options.folder)
    lab, pair = Lab(), None
    try:
        for node, address in ADDRESSES.items():
            lab.add_host(node, [f"{address}/24"])
        lab.ip(lab.lan, f"addr add {INITIATOR_ADDRESS}/24 dev br0")
        lab.ip(lab.lan, "link set lo up")
        enter_namespace(lab.lan)
        # At least five heartbeats to a lease.
        settings = f"heartbeat {{ lease_ms: {options.lease_ms} interval_ms: {min(100, options.lease_ms // 6)} }} "
        if options.arbiter == "etcd":
            settings += start_etcd(lab, place)
        pair = Pair(options.bin, os.path.join(options.folder, "nodes"), VOLUME_BYTES, 3260, 7789, addresses=ADDRESSES,
                    namespaces={node: f"{lab.tag}-{node}" for node in ADDRESSES}, cluster_settings=settings, death_signal="KILL")
        pair.create()
        if options.virtual_ip:
            with open(pair.config, encoding="utf-8") as file:
                text = file.read()
            with open(pair.config, "w", encoding="utf-8") as file:
                text = text.replace("resource {", f'resource {{ virtual_ip {{ address: "{VIRTUAL_ADDRESS}/24" device: "eth0" }}', 1)
                file.write(text.replace("target {", f'target {{ portal {{ address: "{VIRTUAL_ADDRESS}" }}', 1))
        for node in "ab":
            pair.start(node)
        addresses = [VIRTUAL_ADDRESS] if options.virtual_ip else list(ADDRESSES.values())
        Trial(lab, pair, addresses).run(options.rounds, options.only or list(LIMITS))
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
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
