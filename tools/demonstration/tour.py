"""The tour: everything the demo invites a person to try, done and checked by itself.

A real file system through iSCSI, stamped writes, the primary killed among them, the other node promoted, the killed one
brought back under load, and both copies compared byte by byte. Each step is a line with its time; the first
expectation that does not hold raises DemoError.
"""

import collections
import filecmp
import os
import random
import struct
import subprocess
import time

from demonstration.initiator import BLOCK, GOOD, Initiator, InitiatorError
from demonstration.pair import ADDRESSES, IQN, DemoError, device_of, is_in_sync, peer_of, wait_until

VOLUME_BYTES = 128 << 20
IMAGE_BYTES = 32 << 20
STAMPED_FIRST = (48 << 20) // BLOCK  # beyond the image
STAMPED_BLOCKS = (32 << 20) // BLOCK
QUEUE_DEPTH = 16
READ_BLOCKS = 256


def stamp(lba, number):
    """The contents of one block: which block it is and which write made it. Write 0 is the fresh disk."""
    return struct.pack(">8sQQQ", b"replblk\n", lba, number, lba ^ number ^ 0x5AA55AA55AA55AA5) * (BLOCK // 32) if number else bytes(BLOCK)


def stamped(lba, blocks, number):
    return b"".join(stamp(lba + index, number) for index in range(blocks))


class Writer:
    """Writes stamped blocks, many at a time, and knows what each block may hold.

    Of a block that was acknowledged, that write. When a session is lost, what was in flight may have been done or not,
    block by block: such a block may hold either, until it has been read; then it is held to what was read.
    """

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._number = 0
        self.acknowledged = {}  # lba: number of its last acknowledged write
        self.unresolved = collections.defaultdict(set)  # lba: numbers that it may hold instead
        self._flying = {}  # tag: (lba, blocks, number)
        self._busy = set()
        self.acknowledged_writes = 0
        self._initiator = None

    def attach(self, initiator):
        self._initiator = initiator

    def _choose(self):
        """A place where nothing is in flight: the order of two such writes would be anybody's guess."""
        while True:
            blocks = self._random.choice((1, 8, 8, 8, 16, 64, 128, 256))
            lba = STAMPED_FIRST + self._random.randrange(STAMPED_BLOCKS - blocks)
            if blocks > 1:
                lba &= ~7
            if self._busy.isdisjoint(range(lba, lba + blocks)):
                return lba, blocks

    def submit(self):
        lba, blocks = self._choose()
        self._number += 1
        # Known before it is sent: a write whose sending fails half way may have been done.
        flight = (lba, blocks, self._number)
        self._busy.update(range(lba, lba + blocks))
        try:
            self._flying[self._initiator.write(lba, stamped(lba, blocks, self._number))] = flight
        except InitiatorError:
            self._flying[("unsent", self._number)] = flight
            raise

    def collect(self, timeout_s):
        for done in self._initiator.poll(timeout_s):
            lba, blocks, number = self._flying.pop(done.tag)
            self._busy.difference_update(range(lba, lba + blocks))
            if done.status != GOOD:
                raise DemoError(f"write {number} of {blocks} blocks at {lba}: {done}")
            self.acknowledged_writes += 1
            for block in range(lba, lba + blocks):
                self.acknowledged[block] = number
                self.unresolved.pop(block, None)

    def keep_writing(self, is_enough):
        while not is_enough():
            while len(self._flying) < QUEUE_DEPTH and self._initiator.has_room():
                self.submit()
            self.collect(0.5)

    def settle(self, timeout_s=20):
        deadline = time.monotonic() + timeout_s
        while self._flying:
            if time.monotonic() > deadline:
                raise DemoError(f"{len(self._flying)} writes were not answered within {timeout_s} s")
            self.collect(0.5)

    def die_with(self, kill):
        """Fills the queue, sends half a write more, kills, and takes every acknowledgement that still arrives.

        Returns how many writes were in flight at that moment.
        """
        while len(self._flying) < QUEUE_DEPTH and self._initiator.has_room():
            self.submit()
        lba, blocks = self._choose()
        self._number += 1
        self._flying["half"] = (lba, blocks, self._number)
        in_flight = len(self._flying)
        try:
            self._initiator.send_half_a_write(lba, stamped(lba, blocks, self._number))
            kill()
            while True:
                self.collect(5)
        except InitiatorError:
            pass
        for lba, blocks, number in self._flying.values():
            for block in range(lba, lba + blocks):
                self.unresolved[block].add(number)
        self._flying.clear()
        self._busy.clear()
        self._initiator.close()
        return in_flight

    def check(self, read):
        """Compares all stamped blocks with what read(lba, blocks) returns. (blocks compared, unacknowledged ones found)."""
        wrong, found = [], 0
        for lba in range(STAMPED_FIRST, STAMPED_FIRST + STAMPED_BLOCKS, READ_BLOCKS):
            data = read(lba, READ_BLOCKS)
            if len(data) != READ_BLOCKS * BLOCK:
                raise DemoError(f"a read of {READ_BLOCKS} blocks at {lba} returned {len(data)} bytes")
            for index in range(READ_BLOCKS):
                block, contents = lba + index, data[index * BLOCK:(index + 1) * BLOCK]
                number = self.acknowledged.get(block, 0)
                if contents != stamp(block, number):
                    number = next((candidate for candidate in self.unresolved.get(block, ()) if contents == stamp(block, candidate)), None)
                    if number is None:
                        wrong.append((block, contents))
                        continue
                    found += 1
                self.acknowledged[block] = number
                self.unresolved.pop(block, None)
        if wrong:
            raise DemoError(f"{len(wrong)} of {STAMPED_BLOCKS} blocks are wrong, first:\n"
                            + "\n".join(self._describe(block, contents) for block, contents in wrong[:5]))
        return STAMPED_BLOCKS, found

    def _describe(self, block, contents):
        magic, lba, number, _ = struct.unpack_from(">8sQQQ", contents)
        what = f"block {lba} of write {number}" if magic == b"replblk\n" else "zeros" if not any(contents) else f"{contents[:16].hex()}..."
        if magic == b"replblk\n" and contents != stamp(lba, number):
            what += ", torn"
        return f"  block {block}: write {self.acknowledged.get(block, 0)} was acknowledged last, it holds {what}"


class Steps:
    """One line per step, with the time it took; a step that raises is said to have failed."""

    def __init__(self):
        self._start = time.monotonic()

    def run(self, what, action):
        begin = time.monotonic()
        try:
            detail = action()
        except Exception:
            print(f"[{time.monotonic() - self._start:6.1f} s] FAILED  {what}", flush=True)
            raise
        suffix = f": {detail}" if detail else ""
        print(f"[{time.monotonic() - self._start:6.1f} s] ok      {what}{suffix} ({time.monotonic() - begin:.1f} s)", flush=True)


def run_tool(words, timeout_s=60):
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout_s, check=False, env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
    except FileNotFoundError as missing:
        raise DemoError(f"{words[0]} is missing: tools/dev setup installs it") from missing
    except subprocess.TimeoutExpired as late:
        raise DemoError(f"{' '.join(words)}: not finished within {timeout_s} s") from late
    if done.returncode != 0:
        raise DemoError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


class Tour:
    def __init__(self, pair):
        self._pair = pair
        self._image = pair.path("image")
        self._seed = random.randrange(1 << 32)
        self._writer = Writer(self._seed)
        self._initiator = None
        self._data_bytes = 0

    def run(self):
        steps = Steps()
        steps.run("two nodes: files, metadata, daemons", self._start)
        steps.run("node a is primary, the first sync copies everything", self._first_sync)
        steps.run("an ext4 image with files", self._make_image)
        steps.run("qemu-img writes the image through iSCSI to node a", self._write_image)
        steps.run("the image read back from node a is the image", lambda: self._check_image("a"))
        steps.run(f"stamped writes through iSCSI (seed {self._seed}), node a killed with SIGKILL among them", self._kill_among_writes)
        steps.run("node b is promoted", self._promote)
        steps.run("every acknowledged block is on node b", self._check_blocks)
        steps.run("the image read from node b is the image, and a clean file system", lambda: self._check_image("b"))
        steps.run("node b alone takes more writes", lambda: self._write_more(0.5))
        steps.run("node a is started again and resynced while node b is written to", self._bring_back)
        steps.run("every acknowledged block, once more", self._check_blocks)
        steps.run("both daemons stopped", self._stop)
        steps.run("every acknowledged block in the file of either node", self._check_files)
        steps.run("the two data areas are byte-identical", self._compare_areas)

    def _start(self):
        self._pair.create()
        for node in ADDRESSES:
            self._pair.start(node)
        return f"ports {self._pair.iscsi_port} and {self._pair.replication_port} of {' and '.join(ADDRESSES.values())}"

    def _first_sync(self):
        self._pair.ctl("a", "primary", "--force")
        self._wait_in_sync("a", "b")
        self._data_bytes = device_of(self._pair.status("a"))["size"] * 1024
        return f"{self._data_bytes} bytes"

    def _wait_in_sync(self, *nodes):
        for node in nodes:
            wait_until(f"both disks are UpToDate, seen from node {node}", lambda: is_in_sync(self._pair.status(node)), 60)

    def _make_image(self):
        folder = self._pair.path("files")
        os.mkdir(folder)
        source = random.Random(self._seed)
        for name in range(24):
            with open(os.path.join(folder, f"file-{name}"), "wb") as file:
                file.write(source.randbytes(source.randrange(1, 1 << 20)))
        with open(self._image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        run_tool(["mkfs.ext4", "-q", "-F", "-d", folder, self._image])

    def _write_image(self):
        run_tool(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self._image, self._pair.url("a")])

    def _check_image(self, node):
        copy = self._pair.path(f"image-from-{node}")
        run_tool(["qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", f"count={IMAGE_BYTES >> 20}", f"if={self._pair.url(node)}", f"of={copy}"])
        if not filecmp.cmp(copy, self._image, shallow=False):
            raise DemoError(f"what was read from node {node} is not what was written")
        run_tool(["e2fsck", "-f", "-n", copy])
        os.unlink(copy)

    def _connect(self, node):
        self._initiator = Initiator(ADDRESSES[node], self._pair.iscsi_port, IQN)
        self._writer.attach(self._initiator)

    def _kill_among_writes(self):
        self._connect("a")
        enough = time.monotonic() + 1.5
        self._writer.keep_writing(lambda: time.monotonic() > enough and self._writer.acknowledged_writes >= 200)
        before = self._writer.acknowledged_writes
        in_flight = self._writer.die_with(lambda: self._pair.kill("a"))
        self._pair.wait_dead("a")
        if self._writer.acknowledged_writes - before >= in_flight:
            raise DemoError("the kill came when all writes were acknowledged: it was not in mid-write")
        return (f"{self._writer.acknowledged_writes} writes acknowledged, {in_flight} in flight at the kill, "
                f"{self._writer.acknowledged_writes - before} of them acknowledged yet")

    def _promote(self):
        """Refused until node b has noticed that its peer is gone, as it must be."""
        refusals = []

        def promoted():
            code, text = self._pair.try_ctl("b", "primary")
            if code != 0:
                refusals.append(text)
            return code == 0
        wait_until("node b takes the primary role", promoted, 20, interval_s=0.1)
        self._connect("b")
        return f"refused {len(refusals)} times before" if refusals else ""

    def _read(self, lba, blocks):
        done = self._initiator.wait(self._initiator.read(lba, blocks))
        if done.status != GOOD:
            raise DemoError(f"a read of {blocks} blocks at {lba}: {done}")
        return done.data

    def _check_blocks(self):
        compared, found = self._writer.check(self._read)
        return f"{compared} blocks compared" + (f"; {found} blocks of unacknowledged writes were done, too" if found else "")

    def _write_more(self, seconds):
        before, enough = self._writer.acknowledged_writes, time.monotonic() + seconds
        self._writer.keep_writing(lambda: time.monotonic() > enough and self._writer.acknowledged_writes >= before + 50)
        self._writer.settle()
        return f"{self._writer.acknowledged_writes - before} writes"

    def _bring_back(self):
        before = self._writer.acknowledged_writes
        self._pair.start("a")
        deadline = time.monotonic() + 60
        polled = [0.0]

        def in_sync():
            if time.monotonic() > deadline:
                raise DemoError("both disks are UpToDate, seen from node b: not within 60 s")
            if time.monotonic() - polled[0] < 0.2:
                return False
            polled[0] = time.monotonic()
            return is_in_sync(self._pair.status("b"))
        self._writer.keep_writing(in_sync)
        # Mirrored again, and that must be seen, too: writes after the end of the resync.
        after = self._writer.acknowledged_writes + 50
        self._writer.keep_writing(lambda: self._writer.acknowledged_writes >= after)
        self._writer.settle()
        self._wait_in_sync("a", "b")
        sent_kib = peer_of(self._pair.status("b"))["peer_devices"][0]["sent"]
        return f"{sent_kib} KiB sent; {self._writer.acknowledged_writes - before} writes meanwhile"

    def _stop(self):
        self._initiator.log_out()
        for node in ("b", "a"):
            if not self._pair.stop(node):
                raise DemoError(f"replblkd of node {node} did not end well: {self._pair.how_ended(node)}")

    def _check_files(self):
        for node in ADDRESSES:
            with open(self._pair.disk(node), "rb") as file:
                def read(lba, blocks, file=file):
                    file.seek(lba * BLOCK)
                    return file.read(blocks * BLOCK)
                try:
                    self._writer.check(read)
                except DemoError as problem:
                    raise DemoError(f"node {node}: {problem}") from problem
        return f"{len(self._writer.acknowledged)} blocks, {self._writer.acknowledged_writes} writes"

    def _compare_areas(self):
        with open(self._pair.disk("a"), "rb") as one, open(self._pair.disk("b"), "rb") as two:
            for offset in range(0, self._data_bytes, 1 << 20):
                length = min(1 << 20, self._data_bytes - offset)
                left, right = one.read(length), two.read(length)
                if len(left) != length or len(right) != length:
                    raise DemoError(f"a backing file is shorter than {self._data_bytes} bytes")
                if left != right:
                    first = next(index for index in range(length) if left[index] != right[index])
                    raise DemoError(f"the nodes differ at byte {offset + first} of {self._data_bytes} (block {(offset + first) // BLOCK})")
        return f"{self._data_bytes} bytes"
