#!/usr/bin/env python3
"""Real daemons on disks that hang and that fill up: each node's disk is a file on a small ext4 of its own, on a loop device.

A disk that hangs (its file system is frozen) hands the role to the peer and initiators go on there; it is attached again, and
replaced, under load; a file system without room
refuses writes and leaves both copies equal; a Secondary without room is left behind while the Primary goes on. At the end both
copies are identical and hold everything that was answered. Needs root; runs in a mount namespace of its own.
"""

import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import BLOCK, Initiator  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, other, peer_of, wait_until  # noqa: E402
from file_systems import go_on, hang, make_file_system, run  # noqa: E402
from load import REGION_BLOCKS, STEP, Load, TestFailure, check_answered, run_story  # noqa: E402

VOLUME_BYTES = 96 << 20
# The first Primary's is the larger one, so that it is the other one that fills up first.
FILE_SYSTEM_BYTES = {"a": 160 << 20, "b": 56 << 20}
DISK_TIMEOUT_MS = 1000
HANDLERS = ("local_io_error", "before_resync_target", "after_resync_target", "before_resync_source", "fence_peer", "unfence_peer")
# A load that never rests would have one go on for a minute and a half, at what rate_min_kib_per_second is by default.
RESYNC = "resync { rate_min_kib_per_second: 16384 }"
NO_ROOM = "key 7h, ASC/Q 27h/07h"


class Story:
    def __init__(self, pair, mounts):
        self.pair, self.mounts = pair, mounts
        self.told = os.path.join(os.path.dirname(mounts["a"]), "handlers")
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def in_sync(self):
        return all(is_in_sync(self.pair.status(node)) for node in "ab")

    def role(self, node):
        status = self.pair.status(node)
        return status and status["role"]

    def tell(self):
        self.pair.create()
        with open(self.pair.config, encoding="utf-8") as file:
            text = file.read()
        with open(self.pair.config, "w", encoding="utf-8") as file:
            text = text.replace("io_mode: direct", f"io_mode: direct timeout_ms: {DISK_TIMEOUT_MS}")
            told = f"echo $DRBD_RESOURCE {{}} $DRBD_PEER $DRBD_BACKING_DEV >> {self.told}"
            handlers = " ".join(f'{event}: "{told.format(event)}"' for event in HANDLERS)
            file.write(text.replace("resource {", f"resource {{ {RESYNC} handlers {{ {handlers} }}", 1))
        for node in "ab":
            self.pair.start(node)
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.in_sync, 60)
        self.disk_hangs()
        self.primary_is_full()
        self.secondary_is_full()
        self.compare()

    def disk_hangs(self):
        load = Load(self.pair)
        load.start()
        wait_until("writes are answered", lambda: load.count > 200, 20)
        load.pause_s = 0.0
        self.say("the disk of a, which is Primary, hangs")
        hang(self.mounts["a"])
        try:
            wait_until("b takes over", lambda: self.role("b") == "Primary", 10)
            before = load.count
            wait_until("writes are answered by b", lambda: load.count > before + 200, 20)
            status = self.pair.status("a")
            if device_of(status)["disk-state"] != "Failed" or self.role("a") != "Secondary":
                raise TestFailure(f"a does not say that its disk failed: {status}")
            for verb in ("attach", "detach"):
                began = time.monotonic()
                code, text = self.pair.try_ctl("a", verb)
                if code != 11 or "has not given back" not in text or time.monotonic() - began > 2:
                    raise TestFailure(f"{verb} while the disk hangs: exit {code} after {time.monotonic() - began:.1f} s, {text}")
                if self.role("a") != "Secondary":
                    raise TestFailure(f"a does not answer after {verb}")
        finally:
            go_on(self.mounts["a"])
        self.say(f"b serves; the longest pause between two writes was {load.pause_s:.2f} s, disk time-out {DISK_TIMEOUT_MS} ms")
        wait_until("a says when it opens the disk again", lambda: "it is opened again at" in self.pair.try_ctl("a", "status")[1], 20)
        wait_until("a's disk, which answers again, is opened by itself and synchronised, under load", self.in_sync, 60)
        self.check_handlers()
        self.say("a is back by itself; now its disk is replaced, under load")
        code, text = self.pair.try_ctl("b", "detach")
        if code != 11 or "Primary" not in text:
            raise TestFailure(f"the Primary's disk was let go of: exit {code}, {text}")
        self.pair.ctl("a", "detach")
        status = self.pair.status("a")
        if device_of(status)["disk-state"] != "Diskless":
            raise TestFailure(f"a is not Diskless: {status}")
        if self.pair.try_ctl("b", "detach")[0] != 11 or self.pair.try_ctl("b", "invalidate")[0] != 11:
            raise TestFailure("the only good copy was given up")
        with open(self.pair.disk("a"), "wb") as file:
            file.truncate(VOLUME_BYTES)
        self.pair.ctl("a", "create-md")
        self.pair.ctl("a", "attach")
        wait_until("the new disk of a is synchronised, under load", self.in_sync, 60)
        load.finish()
        self.check_answered(load)
        self.say(f"a is back; {load.count} writes were answered, all of them are there; longest pause {load.pause_s:.2f} s")

    def check_handlers(self):
        """What the programs of the administrator's have heard: of the first synchronisation, and of a's disk."""
        expected = {"a": ["before_resync_source", "unfence_peer", "local_io_error", "before_resync_target", "after_resync_target"],
                    "b": ["before_resync_target", "after_resync_target", "fence_peer", "before_resync_source", "unfence_peer"]}
        expected = {node: [f"demo {event} {other(node)} {self.pair.disk(node)}" for event in events] for node, events in expected.items()}

        def heard():
            lines = open(self.told, encoding="utf-8").read().splitlines() if os.path.exists(self.told) else []
            return {node: [line for line in lines if line.endswith(" " + self.pair.disk(node))] for node in "ab"}

        wait_until("the handlers have run", lambda: all(len(heard()[node]) >= len(expected[node]) for node in "ab"), 5)
        if heard() != expected:
            raise TestFailure(f"the handlers were told {heard()}, not {expected}")

    def check_answered(self, load):
        node = "a" if self.role("a") == "Primary" else "b"
        initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:disks")
        check_answered(load, initiator)
        initiator.log_out()

    def fill(self, node, first_block):
        """Writes new blocks until one is refused or the volume ends. The refusal and how many were answered."""
        initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:disks")
        data = os.urandom(128 << 10)
        blocks = device_of(self.pair.status(node))["size"] * 1024 // 4096 - 64
        for block in range(first_block, blocks, len(data) // 4096):
            done = initiator.wait(initiator.write(block * STEP, data))
            if done.status != 0:
                again = initiator.wait(initiator.read(block * STEP, len(data) // BLOCK))
                if again.status != 0:
                    raise TestFailure(f"what was refused for want of room cannot be read: {again}")
                initiator.log_out()
                return str(done), block
        initiator.log_out()
        return None, blocks

    def primary_is_full(self):
        self.say("b, which is Primary now, is written to until its file system is full")
        refusal, self.full_at = self.fill("b", REGION_BLOCKS)
        if refusal is None or NO_ROOM not in refusal:
            raise TestFailure(f"a full file system answers {refusal}, not {NO_ROOM}")
        if not self.in_sync() or self.role("b") != "Primary":
            raise TestFailure(f"a full file system is no failed disk: {self.pair.status('b')}")
        self.say(f"refused with {refusal}; both copies stay UpToDate")

    def secondary_is_full(self):
        self.pair.ctl("b", "secondary")
        self.pair.ctl("a", "primary")
        refusal, block = self.fill("a", self.full_at)
        if refusal is not None:
            raise TestFailure(f"a has room, and answers {refusal} at block {block}")
        reason = peer_of(self.pair.status("a")).get("reason") or self.pair.try_ctl("a", "status")[1]
        if "file system of b is full" not in reason:
            raise TestFailure(f"a does not say why b was left behind: {reason}")
        self.say("a goes on while b has no room, and says so")

    def compare(self):
        self.say("b gets room: its file system is moved to a larger one")
        self.pair.stop("b", 20)
        larger = self.mounts["b"] + "-larger"
        make_file_system(larger, FILE_SYSTEM_BYTES["a"])
        run("cp", "--sparse=always", os.path.join(self.mounts["b"], "disk"), os.path.join(larger, "disk"))
        os.unlink(self.pair.disk("b"))
        os.symlink(os.path.join(larger, "disk"), self.pair.disk("b"))
        self.pair.start("b")
        wait_until("b is synchronised again", self.in_sync, 60)
        length = device_of(self.pair.status("a"))["size"] * 1024
        for node in "ba":
            if not self.pair.stop(node, 20):
                raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        with open(self.pair.disk("a"), "rb") as one, open(self.pair.disk("b"), "rb") as two:
            if one.read(length) != two.read(length):
                raise TestFailure("the two copies differ")
        self.say(f"the two copies are byte-identical: {length} bytes")


def tell(pair, place):
    mounts = {}
    for node, size_bytes in FILE_SYSTEM_BYTES.items():
        mounts[node] = os.path.join(place, node)
        make_file_system(mounts[node], size_bytes)
        os.symlink(os.path.join(mounts[node], "disk"), pair.disk(node))
    Story(pair, mounts).tell()


if __name__ == "__main__":
    sys.exit(run_story(__doc__, VOLUME_BYTES, tell, has_own_mounts=True))
