#!/usr/bin/env python3
"""Several resources of one pair of real daemons, one of them with a virtual IP, in network namespaces of their own.

When the node that serves all of them is killed, the other one takes over each; when it is stopped in order, it gives each away, and resets
the idle initiators of the virtual IP, but not before the other one has it. Needs root.
"""

import argparse
import os
import signal
import sys
import threading
import time

sys.dont_write_bytecode = True

from cluster import TREE, VIRTUAL_ADDRESS, parse_in_own_mounts, run_in_lab  # noqa: E402
from demonstration.initiator import AsyncMessage, Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, is_in_sync, other, wait_until  # noqa: E402
from lab import TestFailure  # noqa: E402

RESOURCES = 8
# What a busy machine may add; the figures are for people.
MOVE_MAX_S = 6
RESET_MAX_S = 3
# A connection request that nobody hears is repeated after 1 s.
RETURN_MAX_S = 0.8


class Idle(threading.Thread):
    """An initiator that does nothing, sees how its connection ends, and comes back at once."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self._initiator_name = name
        self._initiator = Initiator(VIRTUAL_ADDRESS, 3260, IQN, name)
        self.end, self.ended_at, self.back_at = None, None, None

    def run(self):
        while self.end is None:
            try:
                self._initiator.poll(1)
            except AsyncMessage:
                continue
            except InitiatorError as end:
                self.end, self.ended_at = end, time.monotonic()
        try:
            Initiator(VIRTUAL_ADDRESS, 3260, IQN, self._initiator_name).log_out()
            self.back_at = time.monotonic()
        except InitiatorError as refused:
            self.end = refused

    def expect_reset(self, began):
        self.join(max(0.0, began + RESET_MAX_S - time.monotonic()))
        if self.end is None or not isinstance(self.end.__cause__, ConnectionResetError):
            raise TestFailure(f"an idle initiator of the virtual IP was not reset within {RESET_MAX_S} s, but saw: {self.end}")
        away_s = self.back_at - self.ended_at
        if away_s > RETURN_MAX_S:
            raise TestFailure(f"reset before the other node had the virtual IP: the next attempt met nobody, and took {away_s:.2f} s")
        return self.ended_at - began


class Several:
    def __init__(self, cluster):
        self.pair = cluster.pair

    def roles(self, node):
        return [status["role"] for status in self.pair.statuses(node) or []]

    def is_healthy(self):
        return all([is_in_sync(status) for status in self.pair.statuses(node) or []] == [True] * RESOURCES for node in "ab")

    def measure(self, node, action):
        """How long after the action the first and the last resource are served by `node`."""
        began = time.monotonic()
        action()
        wait_until(f"{node} serves one", lambda: "Primary" in self.roles(node), MOVE_MAX_S)
        first = time.monotonic() - began
        wait_until(f"{node} serves all", lambda: self.roles(node) == ["Primary"] * RESOURCES, MOVE_MAX_S)
        return f"the first after {first:.2f} s, the last after {time.monotonic() - began:.2f} s"

    def first_synchronisation(self):
        self.pair.ctl("a", "primary", "--force")
        wait_until("all are in sync", self.is_healthy, 60)

    def kill(self, node):
        def kill():
            self.pair.kill(node)
            self.pair.wait_dead(node)
        print(f"{node} was killed: {other(node)} serves {self.measure(other(node), kill)}", flush=True)
        self.pair.start(node)
        wait_until("all are in sync again", self.is_healthy, 60)

    def stop(self, node):
        initiators = [Idle(f"iqn.2026-11.org.example:several-{number}") for number in range(3)]
        for initiator in initiators:
            initiator.start()
        began = time.monotonic()
        ends = self.measure(other(node), lambda: os.kill(self.pair.pid(node), signal.SIGTERM))
        print(f"{node} was stopped: {other(node)} serves {ends}", flush=True)
        resets = [initiator.expect_reset(began) for initiator in initiators]
        print(f"its idle initiators were reset after {min(resets):.2f} s to {max(resets):.2f} s", flush=True)
        self.pair.wait_dead(node)
        if self.pair.how_ended(node) != "exit 0":
            raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        self.pair.start(node)
        wait_until("all are in sync again", self.is_healthy, 60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    options = parse_in_own_mounts(parser)

    def tell(cluster):
        several = Several(cluster)
        several.first_synchronisation()
        several.kill("a")
        several.stop("b")
        several.kill("a")

    return run_in_lab(options.bin, options.folder, tell, has_virtual_ip=True, resources=RESOURCES)


if __name__ == "__main__":
    sys.exit(main())
