#!/usr/bin/env python3
"""Real daemons with two resources, whose disks change places on one node: each has its resource's name in it, and is refused.

`status` and the log say which disk it is, nothing is written to it, nothing is served from it: not beside the peer that goes on, not when
the peer is gone, and not by force. Put right, both are back by themselves.
"""

import hashlib
import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))

from demonstration.initiator import Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, device_of, is_in_sync, wait_until  # noqa: E402
from load import STEP, TestFailure, run_story  # noqa: E402

VOLUME_BYTES = 16 << 20
BLOCK_BYTES = 4096
BLOCKS = 32
LOOK_S = 1.5
NAMES = {"demo": "other", "other": "demo"}
IQNS = {"demo": IQN, "other": IQN + "-other"}


def stamp(name, number):
    return f"{name}, write {number:5}".encode().ljust(32) * (BLOCK_BYTES // 32)


class Story:
    def __init__(self, pair):
        self.pair = pair
        self.number = 0
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def disk(self, node, name):
        return self.pair.disk(node) + ("" if name == "demo" else "-other")

    def status(self, node, name):
        return next((one for one in self.pair.statuses(node) or [] if one["name"] == name), None)

    def in_sync(self):
        return all(is_in_sync(self.status(node, name)) for node in "ab" for name in NAMES)

    def log_in(self, node, name, timeout_s=5):
        return Initiator(self.pair.addresses[node], self.pair.iscsi_port, IQNS[name], "iqn.2026-11.org.example:wrong-disk", timeout_s)

    def write(self):
        self.number += 1
        for name in NAMES:
            initiator = self.log_in("a", name)
            for block in range(BLOCKS):
                done = initiator.wait(initiator.write(block * STEP, stamp(name, self.number)))
                if done.status != 0:
                    raise TestFailure(f"write of block {block} of {name}: {done}")
            initiator.log_out()

    def checksums(self):
        sums = {}
        for name in NAMES:
            with open(self.disk("b", name), "rb") as file:
                sums[name] = hashlib.sha256(file.read()).hexdigest()
        return sums

    def swap(self):
        one, two = (self.disk("b", name) for name in NAMES)
        os.rename(one, one + "-moved")
        os.rename(two, one)
        os.rename(one + "-moved", two)

    def create(self):
        self.pair.create()
        with open(self.pair.config, encoding="utf-8") as file:
            text = file.read()
        resource = text[text.index("resource {"):].replace('name: "demo"', 'name: "other"').replace(IQN, IQNS["other"])
        for node in "ab":
            resource = resource.replace(self.disk(node, "demo"), self.disk(node, "other"))
            with open(self.disk(node, "other"), "wb") as file:
                file.truncate(VOLUME_BYTES)
        with open(self.pair.config, "w", encoding="utf-8") as file:
            file.write(text + resource)
        for node in "ab":
            self.pair.ctl(node, "create-md", "other")

    def tell(self):
        self.create()
        for node in "ab":
            self.pair.start(node)
        for name in NAMES:
            self.pair.ctl("a", "primary", "--force", name)
        wait_until("the first synchronisation", self.in_sync, 60)
        self.write()
        self.pair.stop("b", 20)
        self.write()
        self.swap()
        before = self.checksums()
        if before["demo"] == before["other"]:
            raise TestFailure("the two disks hold the same: nothing would show that they changed places")
        log_start = os.path.getsize(self.pair.path("b.log"))
        self.pair.start("b")
        time.sleep(LOOK_S)
        self.check_said(log_start)
        self.check_refused()
        self.write()  # a goes on
        self.say("a serves both; b is asked to without it")
        self.pair.kill("a")
        self.pair.wait_dead("a")
        time.sleep(LOOK_S)
        self.check_refused()
        if not self.pair.stop("b", 20):
            raise TestFailure(f"b did not stop in order: {self.pair.how_ended('b')}")
        for name, found in NAMES.items():
            code, text = self.pair.try_ctl("b", "create-md", name)
            if code == 0 or f'resource "{found}"' not in text or "nothing was written" not in text:
                raise TestFailure(f"create-md on the disk of {found}: exit {code}, {text}")
        if self.checksums() != before:
            raise TestFailure(f"a disk of another resource was written to: {before}, now {self.checksums()}")
        self.say("neither disk was written to")
        self.swap()
        for node in "ab":
            self.pair.start(node)
        wait_until("both are UpToDate, each with its own disk", self.in_sync, 60)
        self.compare()

    def check_said(self, log_start):
        with open(self.pair.path("b.log"), encoding="utf-8") as log:
            log.seek(log_start)
            said = log.read()
        text = self.pair.try_ctl("b", "status")[1]
        for name, found in NAMES.items():
            sentence = f'the device holds volume 0 of resource "{found}", the configuration says volume 0 of resource "{name}"'
            reason = device_of(self.status("b", name))["disk-reason"]
            for place, words in (("status", text), ("the log", said), ("disk-reason", reason)):
                if sentence not in words:
                    raise TestFailure(f"{place} does not say that {sentence}:\n{words}")
            self.say(f"{name}: {reason}")

    def check_refused(self):
        for name in NAMES:
            for words in (("primary", name), ("primary", "--force", name), ("attach", name)):
                code, text = self.pair.try_ctl("b", *words)
                status = self.status("b", name)
                if status["role"] != "Secondary" or device_of(status)["disk-state"] not in ("Diskless", "Failed") or status["target"]["serving"]:
                    raise TestFailure(f"{' '.join(words)} on b: exit {code}, {text}\n{status}")
                if code == 0 and words[0] != "attach":
                    raise TestFailure(f"{' '.join(words)} on b, with the disk of another resource: {text}")
            try:
                self.log_in("b", name, 0.5)
            except InitiatorError:
                continue
            raise TestFailure(f"b lets initiators log in to {name}")

    def compare(self):
        lengths = {name: device_of(self.status("a", name))["size"] * 1024 for name in NAMES}
        for node in "ab":
            if not self.pair.stop(node, 20):
                raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        for name, length in lengths.items():
            with open(self.disk("a", name), "rb") as one, open(self.disk("b", name), "rb") as two:
                first = one.read(length)
                if first != two.read(length):
                    raise TestFailure(f"the two copies of {name} differ")
            if first[:BLOCKS * BLOCK_BYTES] != stamp(name, self.number) * BLOCKS:
                raise TestFailure(f"{name} does not hold what was written last")
        self.say("the two copies of each are byte-identical, and hold what was written to it")


if __name__ == "__main__":
    sys.exit(run_story(__doc__, VOLUME_BYTES, lambda pair, place: Story(pair).tell()))
