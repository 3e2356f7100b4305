#!/usr/bin/env python3
"""Real daemons that start, in every order and under every arbiter, and the one that must serve.

A daemon that is started again at once, as systemd does it, costs one move of the role at most. Nodes that were stopped together are the
same pair again without a resync. A node that was left behind serves nothing until the one that went on is back. With `ping` the side
that reaches the address goes on. Needs root.
"""

import argparse
import itertools
import os
import signal
import sys
import time

sys.dont_write_bytecode = True

from cluster import ADDRESSES, TREE, Writer, parse_in_own_mounts, run_in_lab  # noqa: E402
from demonstration.pair import other, peer_of, wait_until  # noqa: E402
from lab import TestFailure  # noqa: E402

# What a busy machine may add; the figures are for people.
RESTART_MAX_S = 6


class Starts:
    def __init__(self, cluster):
        self.cluster, self.lab, self.pair = cluster, cluster.lab, cluster.pair
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def first_synchronisation(self):
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.cluster.is_healthy, 60)

    def kill(self, node):
        self.pair.kill(node)
        self.pair.wait_dead(node)

    def nft(self, node, words):
        self.lab.command(["nft", words], f"{self.lab.tag}-{node}")

    def log_size(self, node):
        return os.path.getsize(self.pair.path(f"{node}.log"))

    def said(self, node, since):
        with open(self.pair.path(f"{node}.log"), encoding="utf-8") as log:
            log.seek(since)
            return log.read()

    def role_moves(self, since):
        return sum(self.said(node, since[node]).count("role Primary") for node in "ab")

    def write_some(self):
        writer = Writer(self.cluster.addresses)
        writer.start()
        wait_until("writes are answered", lambda: writer.count > 100 or writer.problem, 20)
        writer.finish()
        return writer

    def expect_nobody_serves(self, node, seconds, why):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (self.pair.status(node) or {}).get("role") == "Primary":
                raise TestFailure(f"{node} serves, {why}")
            time.sleep(0.1)

    def restart_at_once(self):
        writer = Writer(self.cluster.addresses)
        writer.start()
        wait_until("writes are answered", lambda: writer.count > 200, 20)
        for how in ("killed", "stopped in order"):
            wait_until("both are UpToDate", self.cluster.is_healthy, 60)
            primary, since = self.cluster.primary(), {node: self.log_size(node) for node in "ab"}

            def restart(node=primary, is_killed=how == "killed"):
                if is_killed:
                    self.kill(node)
                else:
                    self.pair.stop(node, 20)
                self.pair.start(node)
            began = time.monotonic()
            pause = writer.measure(f"the primary was {how} and started again", restart, RESTART_MAX_S)
            wait_until("both are UpToDate again", self.cluster.is_healthy, 60)
            healed = time.monotonic() - began
            time.sleep(3)  # Nothing moves afterwards.
            moves = self.role_moves(since)
            if moves > 1 or pause > RESTART_MAX_S:
                raise TestFailure(f"the primary was {how} and started again: {moves} moves of the role, {pause:.2f} s without an answer")
            self.say(f"the primary was {how} and started again at once: {pause * 1000:.0f} ms without an answer, {moves} moves of the role, "
                     f"both UpToDate after {healed:.1f} s")
        writer.finish()
        return writer

    def both_down(self):
        """Stopped in order, one soon after the other, with nothing written in between."""
        for first, back in itertools.product("ab", repeat=2):
            for node in (first, other(first)):
                self.pair.stop(node, 20)
            since = {node: self.log_size(node) for node in "ab"}
            for node in (back, other(back)):
                self.pair.start(node)
            wait_until("both are UpToDate and one serves", self.cluster.is_healthy, 30)
            resyncs = [line for node in "ab" for line in self.said(node, since[node]).splitlines() if "SyncSource, " in line and ", 0 KiB" not in line]
            if resyncs:
                raise TestFailure(f"both were stopped in order, and something was copied or compared: {resyncs}")
            self.say(f"both were stopped, {first} first, and started, {back} first: {self.cluster.primary()} serves, nothing was copied or compared")

    def power_cut(self):
        """Both daemons are killed at once; either may come first."""
        for first in "ab":
            for node in "ab":
                self.pair.kill(node)
            for node in "ab":
                self.pair.wait_dead(node)
            self.pair.start(first)
            self.expect_nobody_serves(first, 2, "though it cannot know what its peer did")
            self.pair.start(other(first))
            wait_until("both are UpToDate and one serves", self.cluster.is_healthy, 30)
            self.say(f"both were killed; {first} alone served nothing; with both, {self.cluster.primary()} serves")

    def left_behind(self):
        """The one that was left behind comes first."""
        ahead = self.cluster.primary()
        behind = other(ahead)
        self.kill(behind)
        writer = self.write_some()
        self.kill(ahead)
        self.pair.start(behind)
        self.expect_nobody_serves(behind, 4, "though it was left behind")
        self.say(f"{behind}, which was left behind, serves nothing: {self.reason(behind)}")
        self.pair.start(ahead)
        wait_until("both are UpToDate and one serves", self.cluster.is_healthy, 30)
        self.cluster.check_answered(writer)
        self.say(f"{ahead} is back and serves; what was answered is there")

    def forced_meanwhile(self):
        """A person took the one that was left behind; the other one comes back, and reaches etcd and initiators, but not its peer."""
        dead = self.cluster.primary()
        forced = other(dead)
        self.kill(forced)
        self.write_some()  # By the one that is alone: a person gives it up.
        self.kill(dead)
        since = self.log_size(forced)
        self.pair.start(forced)
        wait_until(f"{forced} is forced", lambda: self.pair.try_ctl(forced, "primary", "--force")[0] == 0, 10)
        peer = ADDRESSES[forced]
        self.nft(dead, f"add table ip cut; add chain ip cut in {{ type filter hook input priority 0; }}; add chain ip cut out "
                       f"{{ type filter hook output priority 0; }}; add rule ip cut in ip saddr {peer} drop; add rule ip cut out ip daddr {peer} drop")
        try:
            self.pair.start(dead)
            wait_until(f"{dead} says why it serves nothing", lambda: "names the peer as the only member" in self.pair.try_ctl(dead, "status")[1], 10)
            self.expect_nobody_serves(dead, 2, "though its peer was taken by force meanwhile, and etcd knows")
        finally:
            self.nft(dead, "flush ruleset")
        wait_until("the split is reported", lambda: "split brain" in self.said(forced, since), 20)
        self.pair.ctl(dead, "connect", "--discard-my-data")
        self.pair.ctl(forced, "connect")
        wait_until("both are UpToDate and one serves", self.cluster.is_healthy, 30)
        if self.cluster.primary() != forced:
            raise TestFailure(f"{forced} was forced, and does not serve")
        self.say(f"{dead} came back after {forced} had been forced, heard nothing of it, and served nothing")

    def standby(self):
        """What the administrator said outlives the daemon, until he takes it back."""
        primary = self.cluster.primary()
        waiting = other(primary)
        self.pair.ctl(waiting, "standby")
        self.pair.stop(waiting, 20)
        self.pair.start(waiting)
        wait_until("both are UpToDate", self.cluster.is_healthy, 30)
        if "standby" not in self.pair.try_ctl(waiting, "status")[1]:
            raise TestFailure(f"{waiting} was on standby, and has forgotten it")
        # Right after the nodes have met the primary may still be agreeing on that.
        wait_until("switchover to a node on standby is refused", lambda: "on standby" in self.pair.try_ctl(primary, "switchover")[1], 5)
        self.kill(primary)
        self.expect_nobody_serves(waiting, 3, "though it is on standby")
        self.pair.ctl(waiting, "unstandby")
        wait_until(f"{waiting} takes over", lambda: self.cluster.primary() == waiting, 10)
        self.pair.start(primary)
        wait_until("both are UpToDate", self.cluster.is_healthy, 30)
        self.say(f"{waiting} stayed on standby over a restart, and took over when it was allowed to")

    def quorum_lost(self):
        """Neither the peer nor the arbiter answers: nothing is answered until one does, and a person hears of it."""
        primary = self.cluster.primary()
        writer = Writer(self.cluster.addresses)
        writer.start()
        wait_until("writes are answered", lambda: writer.count > 200, 20)
        os.kill(self.cluster.etcd.pid, signal.SIGSTOP)
        try:
            self.kill(other(primary))
            self.expect_told("quorum_lost", primary)
            before = writer.count
            time.sleep(1)
            if writer.count > before:
                raise TestFailure(f"{primary} answers, though nobody let it")
        finally:
            os.kill(self.cluster.etcd.pid, signal.SIGCONT)
        wait_until("etcd lets the primary go on", lambda: writer.count > before + 50, 20)
        self.pair.start(other(primary))
        wait_until("both are UpToDate", self.cluster.is_healthy, 30)
        writer.finish()
        self.cluster.check_answered(writer)
        self.say(f"{primary} held its answers while neither {other(primary)} nor etcd answered, and went on")

    def expect_told(self, event, node):
        wait_until(f"the handler {event} of {node} is run", lambda: (event, node) in self.cluster.told(), 10)

    def check_meetings(self):
        """A node that gave way a moment ago is ready for its resync when it is ready for it, and nobody is at fault."""
        for node in "ab":
            if "not planned" in self.said(node, 0):
                raise TestFailure(f"{node} refused a resync that it had to expect")

    def reason(self, node):
        text = self.pair.try_ctl(node, "status")[1]
        return next((line.split(": ", 1)[1] for line in text.splitlines() if "role Secondary" in line), "no reason")

    def reach_decides(self):
        """`ping`: the primary's cable is pulled, and only the other one reaches the address."""
        primary = self.cluster.primary()
        writer = Writer(self.cluster.addresses)
        writer.start()
        wait_until("writes are answered", lambda: writer.count > 200, 20)
        pause = writer.measure("the primary's cable is pulled", lambda: self.lab.ip(self.lab.lan, f"link set to-{primary} down"), RESTART_MAX_S)
        self.say(f"ping: {other(primary)} took over after {pause * 1000:.0f} ms")
        # Its lease has run out, so it answers nothing; that it gives way is known when no address has answered.
        wait_until("the one that reaches nothing gives way", lambda: self.pair.status(primary)["role"] == "Secondary", 10)
        self.lab.ip(self.lab.lan, f"link set to-{primary} up")
        wait_until("both are UpToDate", self.cluster.is_healthy, 60)
        self.expect_told("pri_lost", primary)
        if peer_of(self.pair.status(primary))["connection-state"] != "Connected":
            raise TestFailure("the nodes do not talk")
        writer.finish()
        return writer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    parser.add_argument("--arbiter", choices=("etcd", "ping"), default="etcd")
    options = parse_in_own_mounts(parser)

    def tell(cluster):
        starts = Starts(cluster)
        starts.first_synchronisation()
        if options.arbiter == "ping":
            writer = starts.reach_decides()
        else:
            writer = starts.restart_at_once()
            starts.both_down()
            starts.power_cut()
            starts.left_behind()
            starts.forced_meanwhile()
            starts.standby()
            starts.quorum_lost()
            starts.check_meetings()
            writer = starts.write_some()
        cluster.check(writer)

    return run_in_lab(options.bin, options.folder, tell, arbiter=options.arbiter)


if __name__ == "__main__":
    sys.exit(main())
