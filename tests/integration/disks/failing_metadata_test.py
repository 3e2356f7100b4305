#!/usr/bin/env python3
"""Real daemons whose metadata is on a device of its own (`metadata_path`), which fails or hangs under load while the data's is well.

Nothing is lost and nothing is refused: a Primary that cannot write its metadata gives the role to its peer, a Secondary is left behind, and
both say so. A device that hung is opened again by itself, one that failed is replaced. At the end both copies are identical and hold
everything that was answered. Needs root; runs in a mount namespace of its own.
"""

import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, other, wait_until  # noqa: E402
from file_systems import FailingDevice, go_on, hang, make_file_system  # noqa: E402
from load import REGION_BLOCKS, STEP, Load, TestFailure, check_answered, compare_copies, run_story  # noqa: E402

VOLUME_BYTES = 64 << 20
METADATA_BYTES = 4 << 20
EXTENT_BYTES = 4 << 20
BLOCK_BYTES = 4096
DISK_TIMEOUT_MS = 1000
LOAD_REST_S = 0.002
RESYNC_KIB = 32768
CANNOT_WRITE = "the metadata cannot be written: "


class Story:
    def __init__(self, pair, place):
        self.pair, self.place = pair, place
        self.mount = os.path.join(place, "metadata")
        self.devices = []
        # The load stays in the first extents. A write to one that has not been written to yet must be recorded first.
        self.next_extent = 8
        self.noted = {}
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def in_sync(self):
        return all(is_in_sync(self.pair.status(node)) for node in "ab")

    def role(self, node):
        return (self.pair.status(node) or {}).get("role")

    def members(self, node):
        return self.pair.status(node)["configuration"]["members"]

    def metadata(self, node):
        return self.pair.path(f"metadata-{node}")

    def give(self, node, path):
        """Its metadata is at `path` from now on."""
        if os.path.lexists(self.metadata(node)):
            os.unlink(self.metadata(node))
        os.symlink(path, self.metadata(node))

    def new_file(self, node):
        path = self.pair.path(f"metadata-{node}-{time.monotonic_ns()}")
        with open(path, "wb") as file:
            file.truncate(METADATA_BYTES)
        self.give(node, path)

    def give_failing(self, node):
        self.devices.append(FailingDevice(f"metadata-{node}", METADATA_BYTES))
        self.give(node, self.devices[-1].path)
        return self.devices[-1]

    def give_hanging(self, node):
        path = os.path.join(self.mount, node)
        with open(path, "wb") as file:
            file.write(bytes(METADATA_BYTES))
        self.give(node, path)

    def replace(self, node, give):
        """As the administrator does it; the data's device stays."""
        self.pair.ctl(node, "detach")
        give(node)
        self.pair.ctl(node, "create-md")
        self.pair.ctl(node, "attach")
        wait_until(f"{node}, with metadata on another device, is synchronised, under load", self.in_sync, 60)

    def write_new_extent(self, first):
        """Answered by whichever node serves, `first` being asked first."""
        block, data = self.next_extent * (EXTENT_BYTES // BLOCK_BYTES), os.urandom(BLOCK_BYTES)
        self.next_extent += 1
        node, deadline = first, time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                initiator = Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:metadata", 2)
                done = initiator.wait(initiator.write(block * STEP, data))
                if done.status != 0:
                    raise TestFailure(f"a write to a new extent by way of {node}: {done}")
                self.noted[block] = data
                initiator.log_out()
                return
            except InitiatorError:
                node = other(node)
                time.sleep(0.02)
        raise TestFailure("a write to a new extent is not answered within 20 s")

    def log_since(self, node, start):
        with open(self.pair.path(f"{node}.log"), encoding="utf-8") as log:
            log.seek(start)
            return log.read()

    def left_behind(self, node, action, word):
        """`action` meets metadata of `node` that cannot be written: the other one serves, and both nodes say so."""
        peer, log_start, before = other(node), os.path.getsize(self.pair.path(f"{node}.log")), self.load.count
        self.load.pause_s = 0.0
        action()
        wait_until(f"the copy of {node} is given up", lambda: device_of(self.pair.status(node))["disk-state"] == "Failed", 10)
        wait_until(f"{peer} serves", lambda: self.role(peer) == "Primary" and self.members(peer) == peer, 10)
        wait_until("writes are answered", lambda: self.load.count > before + 50, 20)
        status, text = self.pair.status(node), self.pair.try_ctl(node, "status")[1]
        for place, said in (("status", text), ("disk-reason", device_of(status)["disk-reason"]), ("the log", self.log_since(node, log_start))):
            if word not in said:
                raise TestFailure(f"{place} of {node} does not say \"{word}\":\n{said}")
        if status["role"] != "Secondary":
            raise TestFailure(f"{node} is {status['role']} without metadata")
        # The last one as soon as it has tried to connect again.
        heard, sentences = self.pair.try_ctl(peer, "status")[1], (f"the disk of {node} failed", "the peer's disk has failed", "the metadata cannot be written")
        if not any(sentence in heard for sentence in sentences):
            raise TestFailure(f"{peer} does not say why {node} is away: {heard}")
        self.say(f"{peer} serves alone; {node} says: {device_of(status)['disk-reason']}; longest pause {self.load.pause_s:.2f} s")

    def tell(self):
        self.configure()
        for node in "ab":
            self.pair.start(node)
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.in_sync, 60)
        self.load = Load(self.pair, LOAD_REST_S)
        self.load.start()
        wait_until("the load has been everywhere", lambda: len(self.load.answered) > REGION_BLOCKS // 7, 20)
        self.primary_fails()
        self.primary_hangs()
        self.secondary_fails()
        self.secondary_hangs()
        self.compare()

    def configure(self):
        make_file_system(self.mount, 4 * METADATA_BYTES)
        self.pair.create()
        with open(self.pair.config, encoding="utf-8") as file:
            text = file.read().replace("io_mode: direct", f"io_mode: direct timeout_ms: {DISK_TIMEOUT_MS}")
        # The resyncs are not what is looked at: the load does not hold them up.
        text = text.replace("resource {", f"resource {{ resync {{ rate_min_kib_per_second: {RESYNC_KIB} }}", 1)
        for node in "ab":
            text = text.replace(f'path: "{self.pair.disk(node)}"', f'path: "{self.pair.disk(node)}" metadata_path: "{self.metadata(node)}"')
        with open(self.pair.config, "w", encoding="utf-8") as file:
            file.write(text)
        self.device = self.give_failing("a")
        self.give_hanging("b")
        for node in "ab":
            with open(self.pair.disk(node), "wb") as file:  # without the metadata that was made inside
                file.truncate(VOLUME_BYTES)
            self.pair.ctl(node, "create-md")

    def primary_fails(self):
        self.say("the metadata's device of a, which is Primary, fails")
        self.device.fail()
        before = self.load.count
        wait_until("writes go on that need no metadata", lambda: self.load.count > before + 50, 10)
        if self.role("a") != "Primary":
            raise TestFailure("a gave the role up before its metadata was wanted")
        content = self.device.content()
        self.left_behind("a", lambda: self.write_new_extent("a"), CANNOT_WRITE + "input/output error")
        if self.device.content() != content:
            raise TestFailure("the device does not fail: it was written to")
        self.replace("a", self.new_file)
        self.say("a is back, with metadata on another device")

    def primary_hangs(self):
        self.say("the metadata's device of b, which is Primary, hangs")
        hang(self.mount)
        try:
            self.left_behind("b", lambda: self.write_new_extent("b"), "until the disk has answered everything")
            self.refused_while_hanging("b")
        finally:
            go_on(self.mount)
        wait_until("b's metadata, which answers again, is opened by itself, and b synchronised", self.in_sync, 60)
        self.say("b is back by itself")

    def refused_while_hanging(self, node):
        for verb in ("attach", "detach"):
            code, text = self.pair.try_ctl(node, verb)
            if code != 11 or "has not given back" not in text:
                raise TestFailure(f"{verb} while the metadata's device hangs: exit {code}, {text}")

    def secondary_fails(self):
        self.pair.ctl("b", "secondary")
        self.pair.ctl("a", "primary")
        self.pair.ctl("b", "detach")
        self.give_failing("b")
        self.pair.ctl("b", "create-md")
        self.pair.ctl("b", "attach")
        wait_until("b is synchronised", self.in_sync, 60)
        self.say("the metadata's device of b, which is Secondary, fails")
        self.devices[-1].fail()
        before = self.load.count
        wait_until("writes go on that need no metadata of b's", lambda: self.load.count > before + 50, 10)
        if not self.in_sync():
            raise TestFailure("b was given up before its metadata was wanted")
        self.left_behind("b", self.move_to_b, CANNOT_WRITE + "input/output error")
        self.replace("b", self.give_hanging)

    def move_to_b(self):
        """Which cannot agree that a has the role no more, so that a keeps it, and serves on."""
        began = time.monotonic()
        code, text = self.pair.try_ctl("a", "secondary")
        if code != 20 or "b was left behind meanwhile" not in text or time.monotonic() - began > 3:
            raise TestFailure(f"secondary on a, when b cannot record it: exit {code} after {time.monotonic() - began:.1f} s, {text}")
        code, text = self.pair.try_ctl("b", "primary", "--force")
        if code != 11 or "nothing can be served without its disk" not in text:
            raise TestFailure(f"b takes the role without metadata: exit {code}, {text}")

    def secondary_hangs(self):
        self.say("the metadata's device of b, which is Secondary, hangs")
        hang(self.mount)
        try:
            self.left_behind("b", self.standby_on_b, CANNOT_WRITE)
            self.refused_while_hanging("b")
        finally:
            go_on(self.mount)
        wait_until("b's metadata, which answers again, is opened by itself, and b synchronised", self.in_sync, 60)
        self.say("b is back by itself")

    def standby_on_b(self):
        code, text = self.pair.try_ctl("b", "standby")
        if code == 0 or CANNOT_WRITE not in text:
            raise TestFailure(f"b says that it has recorded what it cannot: exit {code}, {text}")

    def compare(self):
        self.load.finish()
        initiator = Initiator(self.pair.addresses["a"], self.pair.iscsi_port, IQN, "iqn.2026-11.org.example:metadata")
        check_answered(self.load, initiator)
        initiator.log_out()
        length = device_of(self.pair.status("a"))["size"] * 1024
        data = compare_copies(self.pair, length)
        for block, written in self.noted.items():
            if data[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES] != written:
                raise TestFailure(f"block {block}, whose write was answered, is lost")
        self.say(f"{self.load.count} writes were answered, all of them are there; the two copies are byte-identical: {length} bytes")


if __name__ == "__main__":
    sys.exit(run_story(__doc__, VOLUME_BYTES, lambda pair, place: Story(pair, place).tell(), has_own_mounts=True))
