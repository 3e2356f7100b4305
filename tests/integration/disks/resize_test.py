#!/usr/bin/env python3
"""Real daemons whose disks grow: under load both files become larger, the volume follows, and initiators are told.

Before that, what cannot grow is refused with a sentence; a node that was killed after its disk grew finds its metadata where the disk
ended before. Afterwards what was answered in the new part survives the loss of the Primary, and both copies are identical.
"""

import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import BLOCK, Initiator  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, wait_until  # noqa: E402
from load import Load, TestFailure, check_answered, compare_copies, run_story  # noqa: E402

FIRST_BYTES = 48 << 20
GROWN_BYTES = 112 << 20
STAMP = b"in the new part!" * 256  # 4 KiB


class Story:
    def __init__(self, pair):
        self.pair = pair
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def in_sync(self):
        return all(is_in_sync(self.pair.status(node)) for node in "ab")

    def initiator(self, node):
        return Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:resize")

    def size(self, node):
        return device_of(self.pair.status(node))["size"] * 1024

    def grow_disk(self, node):
        with open(self.pair.disk(node), "r+b") as file:
            file.truncate(GROWN_BYTES)

    def refuse(self, node, word):
        code, text = self.pair.try_ctl(node, "resize")
        if code != 11 or word not in text:
            raise TestFailure(f"resize on {node}: exit {code}, {text}, where a refusal with \"{word}\" was due")

    def tell(self):
        self.pair.create()
        for node in "ab":
            self.pair.start(node)
        self.refuse("a", "connected")
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.in_sync, 60)
        before = self.size("a")
        self.refuse("b", "Primary")
        self.refuse("a", "nothing can grow")
        load = Load(self.pair)
        load.start()
        wait_until("writes are answered", lambda: load.count > 200, 20)
        self.grow_disk("a")
        self.refuse("a", "nothing can grow")
        self.say("the disk of b grows while b is killed")
        self.pair.kill("b")
        self.pair.wait_dead("b")
        self.grow_disk("b")
        self.pair.start("b")
        wait_until("b, whose metadata is before the end of its disk, is back", self.in_sync, 60)
        if self.size("a") != before or self.size("b") != before:
            raise TestFailure(f"nobody asked for it, and the volume has {self.size('a')} and {self.size('b')} bytes, not {before}")
        count = load.count
        load.pause_s = 0.0
        began = time.monotonic()
        self.pair.ctl("a", "resize")
        took_s = time.monotonic() - began
        expected = before + GROWN_BYTES - FIRST_BYTES
        sizes = [self.size(node) for node in "ab"]
        if not all(expected - 65536 <= size <= expected for size in sizes) or sizes[0] != sizes[1]:
            raise TestFailure(f"the volume has {sizes} bytes, not {expected} but for a page or two of bits")
        wait_until("writes go on", lambda: load.count > count + 200, 20)
        if load.capacity_changes != 1:
            raise TestFailure(f"the initiator was told {load.capacity_changes} times that the capacity changed")
        load.finish()
        self.say(f"the volume grew from {before} to {sizes[0]} bytes in {took_s:.2f} s under load; longest pause {load.pause_s:.2f} s")
        self.use_new_part(sizes[0], before)
        self.lose_primary(sizes[0], load)

    def use_new_part(self, size, before):
        initiator = self.initiator("a")
        if initiator.capacity_bytes() != size:
            raise TestFailure(f"READ CAPACITY says {initiator.capacity_bytes()}, not {size}")
        for at in range(before, size - 4096, 1 << 20):
            if any(initiator.wait(initiator.read(at // BLOCK, 8)).data):
                raise TestFailure(f"the new part is not zero at byte {at}")
        for at in (before, size - 4096):
            done = initiator.wait(initiator.write(at // BLOCK, STAMP))
            if done.status != 0:
                raise TestFailure(f"a write to the new part, at byte {at}: {done}")
        initiator.log_out()

    def lose_primary(self, size, load):
        self.pair.kill("a")
        self.pair.wait_dead("a")
        self.pair.try_ctl("b", "primary")
        self.pair.ctl("b", "primary", "--force")
        initiator = self.initiator("b")
        if initiator.capacity_bytes() != size:
            raise TestFailure(f"b says {initiator.capacity_bytes()} bytes, not {size}")
        for at in (size - 4096, size - 65536):
            done = initiator.wait(initiator.read(at // BLOCK, 8))
            if done.status != 0 or bytes(done.data) != (STAMP if at == size - 4096 else bytes(4096)):
                raise TestFailure(f"what a answered at byte {at} is not on b: {done}")
        check_answered(load, initiator)
        initiator.log_out()
        self.pair.start("a")
        wait_until("a is synchronised again", self.in_sync, 60)
        compare_copies(self.pair, size)
        self.say(f"the two copies are byte-identical: {size} bytes")


if __name__ == "__main__":
    sys.exit(run_story(__doc__, FIRST_BYTES, lambda pair, _: Story(pair).tell()))
