"""A stamped load on a pair, and what must be there after it."""

import argparse
import os
import tempfile
import threading
import time

from demonstration.initiator import Initiator, InitiatorError
from demonstration.pair import IQN, DemoError, Pair, other

REGION_BLOCKS = 4096  # of 4 KiB: what the load writes to
STEP = 8  # sectors of 4 KiB
CAPACITY_CHANGED = "key 6h, ASC/Q 2ah/09h"


class TestFailure(Exception):
    pass


class Load(threading.Thread):
    """One write at a time, each block with the number of the write; remembers what was answered."""

    def __init__(self, pair):
        super().__init__(daemon=True)
        self._pair, self._stop_asked = pair, threading.Event()
        self.answered, self.possible = {}, {}
        self.count, self.pause_s, self.problem = 0, 0.0, None
        self.capacity_changes = 0  # that this initiator was told of

    def run(self):
        number, last, node = 0, time.monotonic(), "a"
        while not self._stop_asked.is_set():
            try:
                initiator = Initiator(self._pair.addresses[node], self._pair.iscsi_port, IQN, "iqn.2026-11.org.example:disks", 2)
            except InitiatorError:
                node = other(node)
                time.sleep(0.02)
                continue
            try:
                while not self._stop_asked.is_set():
                    number += 1
                    block = number * 7 % REGION_BLOCKS
                    self.possible.setdefault(block, set()).add(number)
                    done = initiator.wait(initiator.write(block * STEP, number.to_bytes(8, "little") * 512))
                    if CAPACITY_CHANGED in str(done):
                        self.capacity_changes += 1
                        continue
                    if done.status != 0:
                        self.problem = f"write {number} at block {block} by way of {node}: {done}"
                        return
                    self.answered[block], self.possible[block] = number, {number}
                    self.count += 1
                    self.pause_s, last = max(self.pause_s, time.monotonic() - last), time.monotonic()
            except InitiatorError:
                node = other(node)

    def finish(self):
        self._stop_asked.set()
        self.join(30)
        if self.is_alive():
            raise TestFailure("a write has been without an answer for 30 s")
        if self.problem:
            raise TestFailure(self.problem)


def check_answered(load, initiator):
    """Every block holds the last write that was answered, or one without an answer after it."""
    for block, possible in load.possible.items():
        done = initiator.wait(initiator.read(block * STEP, STEP))
        number = int.from_bytes(done.data[:8], "little")
        if done.status != 0 or number not in possible | {load.answered.get(block, 0)} or bytes(done.data) != number.to_bytes(8, "little") * 512:
            raise TestFailure(f"block {block} holds write {number}, not {load.answered.get(block)} (possible {possible})")


def run_story(description, volume_bytes, tell):
    """The main program of a test that is one story: tell(pair, an empty folder). Returns its exit code."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--bin", required=True, help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", required=True, help="where to work; on a file system with room for 300 MiB")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    pair = None
    with tempfile.TemporaryDirectory(prefix="story-", dir=options.folder) as place:
        try:
            pair = Pair(options.bin, os.path.join(options.folder, "nodes"), volume_bytes, 23260, 27789, death_signal="KILL")
            tell(pair, place)
            return 0
        except (TestFailure, DemoError, InitiatorError, OSError) as failure:
            print(f"FAILED: {failure}")
            for node in "ab" if pair else "":
                print(f"--- {node}\n{pair.try_ctl(node, 'status')[1]}\n{pair.log_tail(node)}")
            return 1
        finally:
            if pair:
                pair.close()


def compare_copies(pair, length):
    """Stops both nodes in order. What both copies hold, which must be the same."""
    for node in "ab":
        if not pair.stop(node, 20):
            raise TestFailure(f"{node} did not stop in order: {pair.how_ended(node)}")
    with open(pair.disk("a"), "rb") as one, open(pair.disk("b"), "rb") as two:
        first, second = one.read(length), two.read(length)
    if first != second:
        raise TestFailure("the two copies differ")
    return first
