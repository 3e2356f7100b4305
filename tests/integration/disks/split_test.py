#!/usr/bin/env python3
"""Real daemons that split: a person promotes the node that was cut off, and both copies are written to.

The split is noticed, both nodes say what was written on which of them since when, nothing is merged, and when one copy is given up what
was written to it is kept first: not while the directory for it is missing, and then whole. Then a copy is changed behind its node's back.
The administrator's programs hear of each of these, once.
"""

import calendar
import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import Initiator  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, other, peer_of, wait_until  # noqa: E402
from load import STEP, TestFailure, compare_copies, run_story  # noqa: E402

VOLUME_BYTES = 32 << 20
BLOCK_BYTES = 4096


HANDLERS = ("disconnected", "initial_split_brain", "split_brain", "out_of_sync")
# Blocks that are written while the nodes are apart, and what the nodes must say of them.
WRITTEN = {"a": [*range(16, 40), 2000, 2001, 2002], "b": [*range(30, 50), 3000]}
ONE_SECTOR_OF = 1000  # on a
RANGES = {"a": [(16, 24), (1000, 1), (2000, 3)], "b": [(30, 20), (3000, 1)]}
SECOND_TELLING_S = 0.3  # within which a handler that is run twice would be seen
SPOILED = 4000  # on b's disk, by nobody
ENVIRONMENT = ("DRBD_BACKING_DEV={disk} DRBD_CSTATE={state} DRBD_MY_ADDRESS={own} DRBD_MY_AF=ipv4 DRBD_PEER={peer} DRBD_PEER_ADDRESS={peers} "
               "DRBD_PEER_AF=ipv4 DRBD_RESOURCE=demo DRBD_VOLUME=0")


def stamp(node, block):
    return f"{node} wrote block {block:5}".encode().ljust(32) * (BLOCK_BYTES // 32)


class Story:
    def __init__(self, pair, directory):
        self.pair, self.directory, self.told = pair, directory, directory + "-handlers"
        self.heard = 0  # lines of what the handlers were told
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def write(self, node, blocks, name=None):
        initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:split")
        for block in blocks:
            done = initiator.wait(initiator.write(block * STEP, stamp(name or node, block)))
            if done.status != 0:
                raise TestFailure(f"write of block {block} by way of {node}: {done}")
        if initiator.wait(initiator.synchronize()).status != 0:
            raise TestFailure(f"{node} does not flush")
        initiator.log_out()

    def write_one_sector(self, node, block):
        initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:split")
        done = initiator.wait(initiator.write(block * STEP + 3, bytes(range(256)) * 2))
        if done.status != 0:
            raise TestFailure(f"write of a sector by way of {node}: {done}")
        initiator.log_out()

    def told_since(self):
        """By node: what its handlers have been told since they were last asked for."""
        if not os.path.exists(self.told):
            return {"a": [], "b": []}
        with open(self.told, encoding="utf-8") as file:
            lines = file.read().splitlines()[self.heard:]
        return {node: sorted(line for line in lines if f"DRBD_BACKING_DEV={self.pair.disk(node)} " in line) for node in "ab"}

    def check_told(self, what, **expected):
        """`expected`: by node, the events and the connection's state at each: no more, no less, and nothing else in the environment."""
        lines = {}
        for node in "ab":
            words = {"disk": self.pair.disk(node), "own": self.pair.addresses[node], "peer": other(node), "peers": self.pair.addresses[other(node)]}
            lines[node] = sorted(f"{event} " + ENVIRONMENT.format(state=state, **words) for event, state in expected.get(node, []))
        count = sum(map(len, lines.values()))
        deadline = time.monotonic() + 5
        while sum(map(len, self.told_since().values())) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(SECOND_TELLING_S)
        if self.told_since() != lines:
            raise TestFailure(f"{what}: the handlers were told {self.told_since()}, not {lines}")
        self.heard += count

    def status_text(self, node):
        return self.pair.try_ctl(node, "status")[1]

    def tell(self):
        self.pair.create()
        with open(self.pair.config, encoding="utf-8") as file:
            text = file.read()
        with open(self.pair.config, "w", encoding="utf-8") as file:
            handlers = " ".join(f'{event}: "echo {event} $(env | grep ^DRBD_ | sort) >> {self.told}"' for event in HANDLERS)
            file.write(text.replace("resource {", f'resource {{ undo_directory: "{self.directory}" handlers {{ {handlers} }}', 1))
        for node in "ab":
            self.pair.start(node)
        wait_until("the nodes have met",
                   lambda: all(peer_of(self.pair.status(node))["connection-state"] == "Connected" for node in "ab"), 20)
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", lambda: all(is_in_sync(self.pair.status(node)) for node in "ab"), 60)
        self.check_told("the first synchronisation", a=[("disconnected", "Unconnected")], b=[("disconnected", "Unconnected")])
        # Flushed on both: what is not counts as changed when the connection ends.
        self.write("a", range(0, 64), "both")
        self.say("b is disconnected, and a is written to; then b is promoted by force, and written to")
        parted = time.time()
        self.pair.ctl("b", "disconnect")
        self.check_told("disconnect", a=[("disconnected", "Unconnected")], b=[("disconnected", "StandAlone")])
        self.write("a", WRITTEN["a"])
        self.write_one_sector("a", ONE_SECTOR_OF)
        self.pair.ctl("b", "primary", "--force")
        self.write("b", WRITTEN["b"])
        wait_until("a, which hears that b serves too, answers nothing", lambda: "split" in self.status_text("a"), 10)
        self.pair.ctl("b", "secondary")
        self.pair.ctl("b", "connect")
        wait_until("both say that they have split",
                   lambda: all(peer_of(self.pair.status(node))["connection-state"] == "StandAlone" and "plit" in self.status_text(node) for node in "ab"), 20)
        self.check_told("the split", **{node: [("initial_split_brain", "Connected"), ("split_brain", "Connected")] for node in "ab"})
        self.check_divergence(parted)
        self.pair.ctl("b", "connect", "--discard-my-data")
        self.pair.ctl("a", "connect")
        wait_until("b says that nothing can be kept", lambda: "undo_directory" in self.status_text("b"), 20)
        self.say("b does not give its copy up while " + self.directory + " is missing")
        with open(self.pair.disk("b"), "rb") as file:
            file.seek(45 * BLOCK_BYTES)
            if file.read(BLOCK_BYTES) != stamp("b", 45):
                raise TestFailure("b's copy was overwritten although nothing could be kept")
        os.mkdir(self.directory)
        wait_until("b's copy is given up", lambda: all(is_in_sync(self.pair.status(node)) for node in "ab"), 60)
        if any(self.pair.status(node)["split-brain"] for node in "ab") or "split brain" in self.status_text("a") + self.status_text("b"):
            raise TestFailure(f"the split is over, and status says otherwise:\n{self.status_text('a')}\n{self.status_text('b')}")
        self.check_settled()
        self.check_kept()
        self.spoil()
        self.check_copies()

    def check_divergence(self, parted):
        """Both nodes say of both, in JSON and in text, which blocks were written, and since when: whole blocks of the bitmap's, and no others."""
        for node in "ab":
            status, text = self.pair.status(node), self.status_text(node)
            sides = {side["node"]: side for side in status["split-brain"]}
            for side, role in (("a", "Primary"), ("b", "Secondary")):
                ranges = [{"offset": first * BLOCK_BYTES, "length": count * BLOCK_BYTES} for first, count in RANGES[side]]
                changed = sum(one["length"] for one in ranges)
                expected = {"volume": 0, "changed-bytes": changed, "ranges": ranges, "all-ranges": True}
                if sides[side]["volumes"] != [expected] or sides[side]["role"] != role:
                    raise TestFailure(f"{node} says of {side}: {sides[side]}, not {expected}, {role}")
                since = calendar.timegm(time.strptime(sides[side]["alone-since"], "%Y-%m-%dT%H:%M:%SZ"))
                if not int(parted) <= since <= time.time():
                    raise TestFailure(f"{node} says that {side} is alone since {sides[side]['alone-since']}, but they parted at {parted}")
                places = ", ".join(f"{one['offset']}+{one['length']}" for one in ranges)
                sentence = f"{side} ({role}), alone since {sides[side]['alone-since']}, has changed volume 0: {changed} bytes at {places}"
                if "split brain: " + sentence not in text:
                    raise TestFailure(f"status of {node} does not say \"{sentence}\":\n{text}")
                if node == "a":
                    self.say(sentence)

    def check_settled(self):
        """The split is told of once more when it is settled, and not again at each attempt to keep what is given up; those end connections."""
        time.sleep(SECOND_TELLING_S)
        told = self.told_since()
        for node in "ab":
            events = [line.split()[0] for line in told[node] if not line.startswith("disconnected")]
            if events != ["initial_split_brain"]:
                raise TestFailure(f"the handlers of {node} were told {told[node]}")
        self.heard += sum(map(len, told.values()))

    def spoil(self):
        """A verify finds the block that b's disk no longer holds; then it is copied again."""
        with open(self.pair.disk("b"), "r+b") as file:
            file.seek(SPOILED * BLOCK_BYTES)
            file.write(b"rot" * 1000)
            file.flush()
            os.fsync(file.fileno())
        self.pair.ctl("a", "verify")
        self.check_told("a verify that found a difference", a=[("out_of_sync", "Connected")])
        if self.verified()["ranges"] != [{"offset": SPOILED * BLOCK_BYTES, "length": BLOCK_BYTES}]:
            raise TestFailure(f"block {SPOILED} differs, and the verify says {self.verified()}")
        self.pair.ctl("b", "disconnect")
        self.pair.ctl("b", "connect")
        wait_until("what differed is copied", lambda: all(is_in_sync(self.pair.status(node)) for node in "ab"), 60)
        self.check_told("a connection that ended", a=[("disconnected", "Unconnected")], b=[("disconnected", "StandAlone")])
        self.pair.ctl("a", "verify")
        wait_until("a verify that finds nothing", lambda: self.verified()["complete"] and self.verified()["ranges"] == [], 20)
        self.check_told("a verify that found nothing")

    def verified(self):
        return peer_of(self.pair.status("a"))["peer_devices"][0]["online-verify"]

    def check_kept(self):
        names = os.listdir(self.directory)
        if len(names) != 1 or not names[0].startswith("demo-0-") or not names[0].endswith(".img"):
            raise TestFailure(f"{self.directory} holds {names}")
        path = os.path.join(self.directory, names[0])
        with open(path, "rb") as file:
            data = file.read()
        if len(data) != device_of(self.pair.status("b"))["size"] * 1024:
            raise TestFailure(f"{path} has {len(data)} bytes")
        for block in range(30, 50):
            if data[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES] != stamp("b", block):
                raise TestFailure(f"block {block} of b was not kept")
        taken = os.stat(path).st_blocks * 512
        if taken > len(data) // 2 or os.stat(path).st_mode & 0o077:
            raise TestFailure(f"{path} takes {taken} bytes, mode {os.stat(path).st_mode:o}")
        self.say(f"what b had written is in {names[0]}, which takes {taken // 1024} KiB")

    def check_copies(self):
        first = compare_copies(self.pair, device_of(self.pair.status("a"))["size"] * 1024)
        for block, name in ((5, "both"), (20, "a"), (35, "a"), (45, "both")):
            if first[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES] != stamp(name, block):
                raise TestFailure(f"block {block} is not what {name} wrote")
        self.say("the two copies are byte-identical, and a's")


if __name__ == "__main__":
    sys.exit(run_story(__doc__, VOLUME_BYTES, lambda pair, place: Story(pair, os.path.join(place, "undo")).tell()))
