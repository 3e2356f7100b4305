#!/usr/bin/env python3
"""A real daemon whose disk does not hold what it should: damaged, torn, of the future, too small, of another resource, empty.

One node serves all the time. The other one's disk is spoiled in one way after the other, and its daemon started on it: it says what is
wrong in `status` and in its log, writes nothing to such a disk, serves nothing from it, and does not try again and again. What two copies
of the superblock are there for is repaired without a word from anybody.
"""

import os
import random
import shutil
import struct
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))
sys.path.append(os.path.join(os.path.dirname(HERE), "soak"))

from demonstration.initiator import Initiator  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, wait_until  # noqa: E402
from load import STEP, TestFailure, compare_copies, run_story  # noqa: E402
from superblock import read_record  # noqa: E402

VOLUME_BYTES = 32 << 20
SLOT = 65536
SECTOR = 512
LOOK_S = 2.5
# A daemon that says the same more often than its back-off is one that floods the log.
LINES_MAX = 40


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def seal(sector):
    return sector[:508] + struct.pack("<I", crc32c(sector[:508]))


class Story:
    def __init__(self, pair):
        self.pair = pair
        self.random = random.Random(20261126)
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def in_sync(self):
        return all(is_in_sync(self.pair.status(node)) for node in "ab")

    def write(self, number):
        initiator = Initiator(self.pair.addresses["a"], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:bad-metadata")
        for block in range(8):
            done = initiator.wait(initiator.write(block * STEP, struct.pack("<Q", number) * 512))
            if done.status != 0:
                raise TestFailure(f"write of block {block} by way of a: {done}")
        initiator.log_out()

    def disk(self):
        with open(self.pair.disk("b"), "rb") as file:
            return bytearray(file.read())

    def put(self, data):
        with open(self.pair.disk("b"), "wb") as file:
            file.write(data)

    def first_login(self):
        """One synchronised pair, its nodes stopped in order, the disk of b as it was left then."""
        for node in "ab":
            self.pair.start(node)
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.in_sync, 60)
        self.write(1)
        self.pair.stop("b", 20)

    def decided(self):
        """Who may serve and what the copy is, without when it was opened."""
        return read_record(self.pair.disk("b"))

    def refused(self, what, data, word, is_opened=False):
        """b, started on `data`, says `word` and keeps its hands off. `is_opened`: it may write down that it was, and no more."""
        self.put(data)
        before = self.decided()
        length = len(data) - (2 * SLOT if is_opened else 0)
        log_start = os.path.getsize(self.pair.path("b.log"))
        self.pair.start("b")
        time.sleep(LOOK_S)
        text = self.pair.try_ctl("b", "status")[1]
        with open(self.pair.path("b.log"), encoding="utf-8") as log:
            log.seek(log_start)
            said = log.read()
        status = self.pair.status("b")
        state, role = device_of(status)["disk-state"], status["role"]
        self.write(self.random.randrange(2, 1 << 60))  # a goes on, whatever happens to b
        self.pair.kill("b")
        self.pair.wait_dead("b")
        for place, sentence in (("status", text), ("the log", said)):
            if word not in sentence:
                raise TestFailure(f"{what}: {place} does not say \"{word}\":\n{sentence}")
        if role != "Secondary" or (state not in ("Diskless", "Failed") and not is_opened):
            raise TestFailure(f"{what}: {role}, the disk is {state}")
        if self.decided() != before or self.disk()[:length] != data[:length]:
            raise TestFailure(f"{what}: the disk was written to")
        lines = said.count("\n")
        if lines > LINES_MAX:
            raise TestFailure(f"{what}: {lines} lines in the log within {LOOK_S} s:\n{said}")
        shown = next(line.strip() for line in text.splitlines() if word in line)
        self.say(f"{what}: {shown}")

    def repaired(self, what, data, verb=None, words=()):
        """b is back by itself, and `status` says each of `words`, as long as the daemon runs."""
        self.put(data)
        self.pair.start("b")
        if verb:
            self.pair.ctl("a", verb)
        wait_until(f"{what}: b is back", self.in_sync, 60)
        text, reason = self.pair.try_ctl("b", "status")[1], device_of(self.pair.status("b"))["disk-reason"]
        for word in words:
            if word not in text or word not in reason:
                raise TestFailure(f"{what}: status does not say \"{word}\":\n{text}\n{reason}")
        if not words and reason:
            raise TestFailure(f"{what}: status says {reason}")
        self.write(self.random.randrange(2, 1 << 60))
        self.pair.stop("b", 20)
        self.say(f"{what}: b is back by itself{': ' + reason if reason else ''}")

    def flipped(self, data, *places):
        changed = bytearray(data)
        for place in places:
            changed[place] ^= 1 << self.random.randrange(8)
        return changed

    def resealed(self, data, slot, edit):
        """Sector 0 of the slot, edited, with a right checksum."""
        changed = bytearray(data)
        sector = bytearray(changed[slot:slot + SECTOR])
        edit(sector)
        changed[slot:slot + SECTOR] = seal(sector)
        return changed

    def tell(self):
        self.pair.create()
        self.first_login()
        shutil.move(self.pair.disk("b"), self.pair.path("foreign"))
        with open(self.pair.disk("b"), "wb") as file:
            file.truncate(VOLUME_BYTES)
        self.pair.stop("a", 20)
        for node in "ab":
            self.pair.ctl(node, "create-md", "--force")
        self.first_login()
        with open(self.pair.path("foreign"), "rb") as file:
            foreign = file.read()
        good = self.disk()
        slots = len(good) - 2 * SLOT, len(good) - SLOT
        volume = read_record(self.pair.disk("b")).volume_bytes

        def version(sector):
            sector[8:12] = struct.pack("<I", 9)

        # The header's sector and the record's: one bit in each copy, and nothing is left to go by.
        self.refused("a bit flipped in both superblocks", self.flipped(good, slots[0] + self.random.randrange(SECTOR), slots[1] + self.random.randrange(SECTOR)), "damaged")
        self.refused("a version from the future", self.resealed(self.resealed(good, slots[0], version), slots[1], version), "newer")
        self.refused("garbage where the metadata was", good[:volume] + self.random.randbytes(len(good) - volume), "metadata")
        self.refused("zeroes where the metadata was", good[:volume] + bytes(len(good) - volume), "metadata")
        self.refused("a device that shrank", good[:-(8 << 20)], "metadata")
        self.refused("the disk of another resource", bytearray(foreign), "another pair", True)
        self.repaired("the right disk again", good, "connect")
        for name, slot in zip("AB", slots):
            self.repaired("a bit flipped in one superblock", self.flipped(self.disk(), slot + self.random.randrange(2 * SECTOR)),
                          words=[f"superblock {name} at byte {slot} was"])
        before = self.disk()
        self.repaired("a bit flipped in the bitmap and one in the activity log", self.flipped(
            before, volume + 5, len(before) - 2 * SLOT - (1 << 20) + self.random.randrange(1 << 20)),
            words=["1 sectors of the stored bitmap", "the activity log was damaged"])
        after = self.disk()
        torn = bytearray(after)
        torn[slots[1]:slots[1] + SECTOR] = before[slots[1]:slots[1] + SECTOR]
        self.repaired("a superblock torn between two saves", torn)
        self.pair.start("b")
        wait_until("both are UpToDate", self.in_sync, 60)
        compare_copies(self.pair, volume)
        self.say("the two copies are byte-identical")


if __name__ == "__main__":
    sys.exit(run_story(__doc__, VOLUME_BYTES, lambda pair, place: Story(pair).tell()))
