"""What each sector may hold: the rule of a linearizable register whose written values are all different.

Operations are known by their beginning and end only; nothing of nodes or connections. The check is that of Gibbons and
Korach ("Testing Shared Memories", 1997): a value was there from the first end of an operation on it (its write, or a read
that returned it) to the last beginning of one. Two such stretches must not overlap (forward zones), and a value all of whose
operations overlap each other (a backward zone) must not lie inside another one's stretch.
Invariant: never calls a legal history illegal. Thread-safe: one lock, which also orders beginnings and ends.
"""

import threading

NEVER = float("inf")
FRESH = 0  # the number of a sector that was never written


class Violation(Exception):
    """A promise was broken; the text says which, and what is known of the sector."""


class _Value:
    __slots__ = ("number", "began", "first_end", "last_begin", "last_end", "superseded", "is_certain")

    def __init__(self, number, began):
        self.number = number
        self.began = began
        self.first_end = NEVER  # of its write, or of a read that returned it
        self.last_begin = began
        self.last_end = began
        self.superseded = NEVER  # reads that begin later must not return it
        self.is_certain = False  # it took effect: it was answered or read

    def __str__(self):
        return (f"[{self.number:#x} began {self.began} first end {self.first_end} last beginning {self.last_begin} superseded "
                f"{self.superseded}{' certain' if self.is_certain else ''}]")


class Registers:
    def __init__(self, sectors):
        self._lock = threading.Lock()
        self._clock = 1
        self._sectors = []
        for _ in range(sectors):
            fresh = _Value(FRESH, 0)
            fresh.first_end, fresh.is_certain = 1, True
            self._sectors.append([fresh])
        self._reads = {}  # beginning: its sectors; insertion order is age
        self._writes = {}  # beginning: (sectors, number)

    def begin_write(self, sectors, number):
        """`sectors`: a range. Returns what the other calls name it by."""
        with self._lock:
            self._clock += 1
            self._writes[self._clock] = (sectors, number)
            for sector in sectors:
                self._sectors[sector].append(_Value(number, self._clock))
            return self._clock

    def end_write(self, write):
        """Answered GOOD."""
        with self._lock:
            self._clock += 1
            sectors, _ = self._writes.pop(write)
            for sector in sectors:
                value = self._find(sector, write)
                if value is not None:
                    self._take_effect(sector, value, value.began, self._clock)
                self._prune(sector)

    def close_write(self, write):
        """It has happened or has not, and will not happen later: refused, or lost and a new login has been answered."""
        with self._lock:
            self._clock += 1
            sectors, _ = self._writes.pop(write)
            for sector in sectors:
                value = self._find(sector, write)
                if value is not None:
                    value.first_end = min(value.first_end, self._clock)
                    value.last_end = self._clock

    def begin_read(self, sectors):
        with self._lock:
            self._clock += 1
            self._reads[self._clock] = sectors
            return self._clock

    def end_read(self, read, numbers):
        """`numbers`: what each sector held."""
        with self._lock:
            self._clock += 1
            sectors = self._reads[read]
            for sector, number in zip(sectors, numbers):
                value = next((value for value in self._sectors[sector] if value.number == number), None)
                if value is None or value.superseded < read:
                    raise Violation(f"sector {sector} holds {number:#x}, which nobody may read now: {self._describe(sector)}")
                self._take_effect(sector, value, read, self._clock)
            del self._reads[read]
            for sector in sectors:
                self._prune(sector)

    def drop_read(self, read):
        with self._lock:
            del self._reads[read]

    def check_rest(self, sector, number):
        """Nothing is in flight: may a copy that holds every answered write hold this?"""
        if not any(value.number == number and value.superseded == NEVER for value in self._sectors[sector]):
            raise Violation(f"sector {sector} holds {number:#x}, which it must not: {self._describe(sector)}")

    def _find(self, sector, began):
        return next((value for value in self._sectors[sector] if value.began == began), None)

    def _describe(self, sector):
        return "".join(map(str, self._sectors[sector]))

    def _take_effect(self, sector, value, began, ended):
        value.is_certain = True
        value.first_end = min(value.first_end, ended)
        value.last_begin = max(value.last_begin, began)
        value.last_end = ended
        for other in self._sectors[sector]:
            if other is value:
                continue
            if other.first_end < began:  # It was there before this operation began; afterwards another one was.
                other.superseded = min(other.superseded, ended)
            if other.is_certain and _collide(value, other):
                raise Violation(f"sector {sector}: {value.number:#x} and {other.number:#x} were there by turns: {self._describe(sector)}")

    def _prune(self, sector):
        values = self._sectors[sector]
        if len(values) > 1:
            oldest_read = next(iter(self._reads), NEVER)
            self._sectors[sector] = [value for value in values if value.superseded >= oldest_read or value.last_end >= oldest_read
                                     or value.superseded == NEVER or value.began in self._writes]


def _collide(one, two):
    """Whether the stretches exclude each other. Two backward zones never do."""
    is_any_forward = one.first_end < one.last_begin or two.first_end < two.last_begin
    return is_any_forward and one.first_end < two.last_begin and two.first_end < one.last_begin
