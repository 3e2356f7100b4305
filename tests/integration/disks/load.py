"""A stamped load on a pair, and what must be there after it."""

import argparse
import os
import sys
import tempfile
import threading
import time

from demonstration.initiator import Initiator, InitiatorError
from demonstration.pair import IQN, DemoError, Pair, other
from file_systems import unmount_all

OWN_MOUNTS = "--in-own-mounts"
REGION_BLOCKS = 4096  # of 4 KiB: what the load writes to
STEP = 8  # sectors of 4 KiB
CAPACITY_CHANGED = "key 6h, ASC/Q 2ah/09h"


class TestFailure(Exception):
    pass


class Load(threading.Thread):
    """One write at a time, each block with the number of the write; remembers what was answered."""

    def __init__(self, pair, rest_s=0.0):
        """`rest_s`: what it waits between two writes, which leaves more to a resync."""
        super().__init__(daemon=True)
        self._pair, self._rest_s, self._stop_asked = pair, rest_s, threading.Event()
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
                    if self._rest_s > 0:
                        time.sleep(self._rest_s)
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


def run_story(description, volume_bytes, tell, has_own_mounts=False):
    """The main program of a test that is one story: tell(pair, an empty folder). Returns its exit code.

    `has_own_mounts`: as root, in a mount namespace of its own; what is mounted in the folder is unmounted at the end.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--bin", required=True, help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", required=True, help="where to work; on a file system with room for 400 MiB")
    parser.add_argument(OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if has_own_mounts and os.geteuid() != 0:
        sys.exit("needs root: it mounts file systems")
    if has_own_mounts and not options.in_own_mounts:
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", os.path.realpath(sys.argv[0]), *sys.argv[1:],
                              OWN_MOUNTS])
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
            unmount_all(place)


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
