"""Initiators that never give up: stamped writes, reads and flushes over sessions that break and are built again.

Each Load is a thread with one session at a time. Before a command leaves and when its answer has come the Registers hear of
it. What was in flight when a session ended may still happen until the next login of the same initiator has been answered
(protocol.md 4, "No ghosts"). Not responsible for which node serves: it tries one after the other.
"""

import random
import threading
import time

from demonstration.initiator import CHECK_CONDITION, GOOD, Initiator, InitiatorError
from register import Violation
from stamp import SECTOR, number_in, number_of, stamped

BUSY, TASK_SET_FULL = 0x08, 0x28
NOT_READY, UNIT_ATTENTION = 2, 6
ANSWER_MAX_S = 8  # then the session is given up, as an initiator's error handling does
LOGIN_MAX_S = 4
BREAK_PER_S = 0.05  # sessions given up for no reason


class Load(threading.Thread):
    def __init__(self, number, seed, portals, iqn, registers, sectors):
        super().__init__(name=f"initiator-{number}", daemon=True)
        self._number = number
        self._random = random.Random(f"{seed}/{number}")
        self._portals = portals
        self._iqn = iqn
        self._registers = registers
        self._sectors = sectors
        self._depth = self._random.choice((1, 4, 8, 16))
        self._sequence = 0
        self._flying = {}  # tag: (kind, sectors, operation, when)
        self._lost = []
        self._portal = 0
        self._is_stopping = threading.Event()
        self.violation = None
        self.writes = self.reads = self.logins = self.lost_writes = self.refused = 0
        self.last_answer = 0.0

    def stop(self):
        """New commands are no longer sent; the thread ends when all are answered or lost for good."""
        self._is_stopping.set()

    def run(self):
        try:
            while not (self._is_stopping.is_set() and not self._lost):
                self._one_session()
        except Violation as violation:
            self.violation = f"{self.name}: {violation}"
        except Exception as problem:  # noqa: BLE001  (whatever it is, the run must hear of it)
            self.violation = f"{self.name}: {type(problem).__name__}: {problem}"

    def _one_session(self):
        initiator = None
        try:
            initiator = Initiator(*self._portals[self._portal], self._iqn, f"iqn.2026-11.org.example:soak-{self._number}", LOGIN_MAX_S,
                                  b"\x80soak" + bytes([self._number]))
            self.logins += 1
            for write in self._lost:
                self._registers.close_write(write)
            self._lost.clear()
            self._use(initiator)
        except InitiatorError:
            self._portal = (self._portal + 1) % len(self._portals)
            time.sleep(0.05)
        finally:
            if initiator is not None:
                initiator.close()
            self._forget_flying()

    def _forget_flying(self):
        for kind, _, operation, _ in self._flying.values():
            if kind == "write":
                self._lost.append(operation)
                self.lost_writes += 1
            elif kind == "read":
                self._registers.drop_read(operation)
        self._flying.clear()

    def _use(self, initiator):
        until = time.monotonic() + self._random.expovariate(BREAK_PER_S)
        while not (self._is_stopping.is_set() and not self._flying):
            if time.monotonic() > until and not self._is_stopping.is_set():
                return  # The session is left without a logout; the next login takes its place.
            while not self._is_stopping.is_set() and len(self._flying) < self._depth and initiator.has_room():
                self._submit(initiator)
            for done in initiator.poll(0.05):
                self._take(done)
            oldest = min((flight[3] for flight in self._flying.values()), default=None)
            if oldest is not None and time.monotonic() - oldest > ANSWER_MAX_S:
                raise InitiatorError("a command got no answer")

    def _draw(self):
        count = self._random.choice((1, 8, 8, 8, 8, 16, 32, 256))
        # A small hot range makes overlaps, and rewrites of what is being resynced.
        span = 128 if self._random.random() < 0.5 and count <= 32 else self._sectors - count
        first = self._random.randrange(span + 1)
        if count > 1:
            first &= ~7
        return range(first, first + count)

    def _submit(self, initiator):
        sectors = self._draw()
        draw = self._random.random()
        if draw < 0.55:
            self._sequence += 1
            number = number_of(self._number, self._sequence)
            operation = self._registers.begin_write(sectors, number)
            # Known before it is sent: a write whose sending fails half way may have been done.
            self._flying["leaving"] = ("write", sectors, operation, time.monotonic())
            tag = initiator.write(sectors.start, stamped(number, sectors))
        elif draw < 0.97:
            operation = self._registers.begin_read(sectors)
            self._flying["leaving"] = ("read", sectors, operation, time.monotonic())
            tag = initiator.read(sectors.start, len(sectors))
        else:
            self._flying["leaving"] = ("flush", sectors, None, time.monotonic())
            tag = initiator.synchronize()
        self._flying[tag] = self._flying.pop("leaving")

    def _take(self, done):
        kind, sectors, operation, _ = self._flying.pop(done.tag)
        if done.status != GOOD:
            key = done.sense[2] & 15 if done.status == CHECK_CONDITION and len(done.sense) > 2 else None
            if done.status not in (BUSY, TASK_SET_FULL) and key not in (NOT_READY, UNIT_ATTENTION):
                raise Violation(f"{kind} of {len(sectors)} sectors at {sectors.start} failed: {done}")
            self.refused += 1
            if kind == "write":
                self._registers.close_write(operation)
            elif kind == "read":
                self._registers.drop_read(operation)
            return
        self.last_answer = time.monotonic()
        if kind == "write":
            self.writes += 1
            self._registers.end_write(operation)
        elif kind == "read":
            self.reads += 1
            self._registers.end_read(operation, numbers_in(done.data, sectors))


def numbers_in(data, sectors):
    numbers = [number_in(data[at:at + SECTOR], lba) for at, lba in zip(range(0, len(data), SECTOR), sectors)]
    if None in numbers:
        raise Violation(f"sector {sectors[numbers.index(None)]} is neither a stamp of its place nor zeroes")
    return numbers
