#!/usr/bin/env python3
"""How long initiators see nothing when the role moves, with real daemons and a real etcd in network namespaces of their own.

A node's daemon is killed or stopped, its cable is pulled, it reaches neither its peer nor etcd (while initiators reach both nodes), its disk
hangs, the other node's daemon is killed, the role is switched over. Each round measures the longest time between two answered writes, then
heals, and waits until both copies are UpToDate. Both copies must be identical then, no answered write may be lost, and another initiator,
which reads all the time and stays where it is answered, may see nothing that is older than what was answered before. By hand with
--rounds 20 for figures; in CI one round of each, with wide limits.
Needs root; runs in a mount namespace of its own.
"""

import argparse
import os
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True

from cluster import ADDRESSES, ETCD_ADDRESS, PATIENCE_S, STEP, TREE, BLOCKS, Reader, Writer, parse_in_own_mounts, run_in_lab  # noqa: E402
from demonstration.pair import other, wait_until  # noqa: E402
from file_systems import go_on, hang  # noqa: E402
from lab import TestFailure  # noqa: E402

# What CI holds it to, in seconds: a busy machine adds to each of them. The figures are for people.
LIMITS = {"kill the primary": 6, "stop the primary's process": 6, "pull the primary's cable": 6, "cut the primary off": 6,
          "hang the primary's disk": 6, "kill the secondary": 3, "switch over": 3, "stop the primary's daemon in order": 3, "stop the secondary's daemon in order": 3}
# There the target answers, but not to a write: it must let the initiator go, which would wait for longer than any limit.
PATIENT = {"cut the primary off"}
LONG_PATIENCE_S = 30
COMPARED_BYTES = BLOCKS * STEP * 512  # what is written to


class Trial:
    def __init__(self, cluster):
        self.cluster, self.lab, self.pair = cluster, cluster.lab, cluster.pair
        self.hanging = set()

    def hang(self, node):
        self.hanging.add(node)
        hang(self.cluster.mounts[node])

    def heal(self):
        if self.cluster.etcd:
            os.kill(self.cluster.etcd.pid, signal.SIGCONT)
        while self.hanging:
            node = self.hanging.pop()
            go_on(self.cluster.mounts[node])
            # By itself a disk that hangs again and again is opened ever later.
            wait_until("the disk that answers again is opened", lambda at=node: self.pair.try_ctl(at, "attach")[0] == 0, 20)
        for node in "ab":
            self.lab.ip(self.lab.lan, f"link set to-{node} up")
            self.nft(node, "flush ruleset")
            if self.pair.is_running(node):
                os.kill(self.pair.pid(node), signal.SIGCONT)
            else:
                self.pair.start(node)
        wait_until("both are UpToDate", self.cluster.is_healthy, 60)
        # A lease, and what the last resync left.
        time.sleep(0.5)

    def kill(self, node):
        self.pair.kill(node)

    def nft(self, node, words):
        self.lab.command(["nft", words], f"{self.lab.tag}-{node}")

    def cut_off(self, node):
        """From its peer, on each path, and from etcd; not from the initiator. What is on its way is lost, too."""
        lost = f"{{ {ADDRESSES[other(node)]}, {ETCD_ADDRESS} }}"
        self.nft(node, f"add table ip cut; add chain ip cut in {{ type filter hook input priority 0; }}; "
                       f"add chain ip cut out {{ type filter hook output priority 0; }}; "
                       f"add rule ip cut in ip saddr {lost} drop; add rule ip cut out ip daddr {lost} drop")

    def stop_in_order(self, node):
        """What is planned needs no arbiter."""
        if self.cluster.etcd:
            os.kill(self.cluster.etcd.pid, signal.SIGSTOP)
        if not self.pair.stop(node, 20):
            raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")

    def actions(self):
        primary = self.cluster.primary()
        return {"kill the primary": lambda: self.kill(primary),
                "stop the primary's process": lambda: os.kill(self.pair.pid(primary), signal.SIGSTOP),
                "pull the primary's cable": lambda: self.lab.ip(self.lab.lan, f"link set to-{primary} down"),
                "cut the primary off": lambda: self.cut_off(primary),
                "hang the primary's disk": lambda: self.hang(primary),
                "kill the secondary": lambda: self.kill(other(primary)),
                "switch over": lambda: self.pair.ctl(primary, "switchover"),
                "stop the primary's daemon in order": lambda: self.stop_in_order(primary),
                "stop the secondary's daemon in order": lambda: self.stop_in_order(other(primary))}

    def run(self, rounds, names):
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.cluster.is_healthy, 60)
        writer = Writer(self.cluster.addresses)
        reader = Reader(writer)
        for initiator in (writer, reader):
            initiator.start()
        wait_until("writes are answered", lambda: writer.count > 200 and reader.count > 0, 20)
        for name in names:
            pauses = []
            for _ in range(rounds):
                pauses.append(writer.measure(name, self.actions()[name], LIMITS[name], LONG_PATIENCE_S if name in PATIENT else PATIENCE_S))
                self.heal()
                with writer.held():
                    self.cluster.compare_copies(COMPARED_BYTES)
                if reader.problem:
                    raise TestFailure(reader.problem)
            worst = max(pauses)
            print(f"{name:36} {rounds:3} rounds: median {statistics.median(pauses) * 1000:6.0f} ms, worst {worst * 1000:6.0f} ms", flush=True)
            if worst > LIMITS[name]:
                raise TestFailure(f"{name}: {worst:.2f} s without an answer")
        writer.finish()
        reader.finish()
        print(f"{reader.count} reads, none of them stale; the copies were identical after each round", flush=True)
        self.cluster.check(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    parser.add_argument("--rounds", type=int, default=1, help="of each")
    parser.add_argument("--arbiter", choices=("etcd", "none"), default="etcd")
    parser.add_argument("--virtual-ip", action="store_true", help="initiators know it only, not the nodes' addresses")
    parser.add_argument("--lease-ms", type=int, default=1000)
    parser.add_argument("--only", action="append", choices=LIMITS, help="this one (again for more)")
    options = parse_in_own_mounts(parser)

    def tell(cluster):
        Trial(cluster).run(options.rounds, options.only or list(LIMITS))

    return run_in_lab(options.bin, options.folder, tell, arbiter=options.arbiter, lease_ms=options.lease_ms, has_virtual_ip=options.virtual_ip)


if __name__ == "__main__":
    sys.exit(main())
