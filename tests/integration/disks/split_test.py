#!/usr/bin/env python3
"""Real daemons that split: a person promotes the node that was cut off, and both copies are written to.

The split is noticed, nothing is merged, and when one copy is given up what was written to it is kept first: not while the directory for
it is missing, and then whole.
"""

import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import Initiator  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, peer_of, wait_until  # noqa: E402
from load import STEP, TestFailure, compare_copies, run_story  # noqa: E402

VOLUME_BYTES = 32 << 20
BLOCK_BYTES = 4096


def stamp(node, block):
    return f"{node} wrote block {block:5}".encode().ljust(32) * (BLOCK_BYTES // 32)


class Story:
    def __init__(self, pair, directory):
        self.pair, self.directory = pair, directory
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def write(self, node, blocks, name=None):
        initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:split")
        for block in blocks:
            done = initiator.wait(initiator.write(block * STEP, stamp(name or node, block)))
            if done.status != 0:
                raise TestFailure(f"write of block {block} by way of {node}: {done}")
        initiator.log_out()

    def status_text(self, node):
        return self.pair.try_ctl(node, "status")[1]

    def tell(self):
        self.pair.create()
        with open(self.pair.config, encoding="utf-8") as file:
            text = file.read()
        with open(self.pair.config, "w", encoding="utf-8") as file:
            file.write(text.replace("resource {", f'resource {{ undo_directory: "{self.directory}"', 1))
        for node in "ab":
            self.pair.start(node)
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", lambda: all(is_in_sync(self.pair.status(node)) for node in "ab"), 60)
        self.write("a", range(0, 64), "both")
        self.say("b is disconnected, and a is written to; then b is promoted by force, and written to")
        self.pair.ctl("b", "disconnect")
        self.write("a", range(16, 40))
        self.pair.ctl("b", "primary", "--force")
        self.write("b", range(30, 50))
        wait_until("a, which hears that b serves too, answers nothing", lambda: "split" in self.status_text("a"), 10)
        self.pair.ctl("b", "secondary")
        self.pair.ctl("b", "connect")
        wait_until("both say that they have split",
                   lambda: all(peer_of(self.pair.status(node))["connection-state"] == "StandAlone" and "plit" in self.status_text(node) for node in "ab"), 20)
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
        self.check_kept()
        self.check_copies()

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
