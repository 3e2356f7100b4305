#!/usr/bin/env python3
"""Real daemons and an etcd of three members, each in a network namespace of its own, and cuts that run right through them.

The Primary keeps etcd's leader and loses everybody else: a leader without a majority decides nothing, so the other node takes over, and no
answered write is lost. A node that loses the member which it asked last goes on with another one. After each cut there is one record.
Needs root; runs in a mount namespace of its own.
"""

import argparse
import base64
import json
import os
import sys
import time

sys.dont_write_bytecode = True

from cluster import ADDRESSES, ETCD_ADDRESSES, TREE, Reader, Writer, call_etcd, parse_in_own_mounts, run_in_lab  # noqa: E402
from demonstration.pair import other, wait_until  # noqa: E402
from lab import TestFailure  # noqa: E402

# What a busy machine may add; the figures are for people.
TAKEOVER_MAX_S = 8
REMOVAL_MAX_S = 6
LONG_PATIENCE_S = 30  # the target must let its initiators go
KEY = "/replblk/demo/demo"


class Partitions:
    def __init__(self, cluster):
        self.cluster, self.lab, self.pair = cluster, cluster.lab, cluster.pair
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def cut(self, host, addresses):
        """What is on its way is lost, too."""
        lost = f"{{ {', '.join(addresses)} }}"
        self.nft(host, f"add table ip cut; add chain ip cut in {{ type filter hook input priority 0; }}; "
                       f"add chain ip cut out {{ type filter hook output priority 0; }}; "
                       f"add rule ip cut in ip saddr {lost} drop; add rule ip cut out ip daddr {lost} drop")

    def nft(self, host, words):
        self.lab.command(["nft", words], f"{self.lab.tag}-{host}")

    def serves(self, node):
        return self.pair.status(node)["target"]["serving"]

    def heal(self):
        for host in ("a", "b", "e0", "e1", "e2"):
            self.nft(host, "flush ruleset")
        for node in "ab":
            if not self.pair.is_running(node):
                self.pair.start(node)
        wait_until("both are UpToDate", self.cluster.is_healthy, 60)

    def leader(self):
        def find():
            for number, address in enumerate(ETCD_ADDRESSES):
                status = call_etcd(address, "maintenance/status")
                if status and status["leader"] == status["header"]["member_id"]:
                    return number + 1
            return None
        return wait_until("etcd has a leader", find, 20) - 1

    def record(self, number):
        """As the member has it by itself, without asking the others."""
        answer = call_etcd(ETCD_ADDRESSES[number], "kv/range", key=base64.b64encode(KEY.encode()).decode(), serializable=True)
        return json.loads(base64.b64decode(answer["kvs"][0]["value"]))

    def leader_in_the_minority(self, writer):
        primary, leader = self.cluster.primary(), self.leader()
        waiting = other(primary)
        others = [address for number, address in enumerate(ETCD_ADDRESSES) if number != leader]
        before = self.record(leader)

        def cut():
            self.cut(f"e{leader}", [*others, ADDRESSES[waiting]])
            self.cut(primary, [*others, ADDRESSES[waiting]])
        pause = writer.measure("the Primary and etcd's leader are cut off together", cut, TAKEOVER_MAX_S, LONG_PATIENCE_S)
        if self.serves(primary) or not self.serves(waiting) or not self.pair.status(primary)["suspended"]:
            raise TestFailure(f"{primary}, which has etcd's leader without a majority, serves: {self.pair.status(primary)}")
        if self.record(leader) != before:
            raise TestFailure(f"a leader without a majority has changed the record: {self.record(leader)}")
        self.heal()
        if self.cluster.primary() != waiting:
            raise TestFailure(f"the role went back to {primary}")
        self.expect_one_record(waiting)
        self.say(f"{primary} and etcd's leader were cut off together: {waiting} took over; {pause * 1000:.0f} ms without an answer")

    def expect_one_record(self, sole):
        wait_until("all members have one record", lambda: len({json.dumps(self.record(number), sort_keys=True) for number in range(3)}) == 1, 10)
        if self.record(0)["primary"] != "ab".index(sole):
            raise TestFailure(f"the record does not name {sole}: {self.record(0)}")

    def silent_members(self, writer):
        """Each in turn, so that it is the one that is asked first at least once."""
        for number, address in enumerate(ETCD_ADDRESSES):
            primary = self.cluster.primary()
            self.cut(primary, [address])
            pause = writer.measure(f"{primary} does not reach member {number}, and its peer is killed", lambda at=primary: self.pair.kill(other(at)),
                                   REMOVAL_MAX_S)
            if self.cluster.primary() != primary:
                raise TestFailure(f"{primary} does not serve any more")
            self.pair.wait_dead(other(primary))
            self.heal()
            self.expect_one_record(primary)
            self.say(f"{primary} did not reach member {number}, and its peer was killed: {pause * 1000:.0f} ms without an answer")

    def tell(self):
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.cluster.is_healthy, 60)
        writer = Writer(self.cluster.addresses)
        reader = Reader(writer)
        for initiator in (writer, reader):
            initiator.start()
        wait_until("writes are answered", lambda: writer.count > 200, 20)
        self.leader_in_the_minority(writer)
        self.silent_members(writer)
        writer.finish()
        reader.finish()
        self.cluster.check(writer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    options = parse_in_own_mounts(parser)
    return run_in_lab(options.bin, options.folder, lambda cluster: Partitions(cluster).tell(), etcd_members=len(ETCD_ADDRESSES))


if __name__ == "__main__":
    sys.exit(main())
