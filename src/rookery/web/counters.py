"""Counters of a short time that all workers of a server share, without a lock."""

import mmap

MINUTE, HOUR = 60, 3_600
"""The windows in which requests are counted, in seconds."""
_WIDTH = 1 << 16
"""Counters of a row. A key has one in each of two rows, and may share it with others: the lesser count is right."""
_CELLS = 1 + 2 * _WIDTH
_BYTES_OF_A_CELL = 4
_MOST = 2**32 - 1


class Counters:
    """A table of counters for each window, in memory that forked processes share.

    It is a count-min sketch (Cormode and Muthukrishnan, 2005) with a part for each worker, which adds to its own part
    and reads all of them. A count is never too low, but for requests that two workers count in the same microsecond.
    It may be too high, by what other keys of the same counters have: with 5,000 clients in a window that is so for 6
    of 1,000. It takes a megabyte for each worker.
    """

    def __init__(self, workers: int = 1) -> None:
        self._tables = {seconds: _Table(workers) for seconds in (MINUTE, HOUR)}
        self._worker = 0

    def seen_by(self, worker: int) -> "Counters":
        """The same counters for another of the workers, numbered from 0."""
        other = object.__new__(Counters)
        other._tables, other._worker = self._tables, worker
        return other

    def add(self, key: bytes, seconds: int, window: int) -> int:
        """Count a key once more in the window of this number, of so many seconds; how often it was counted there."""
        # Python's hash is SipHash under a random key, which forked processes have in common.
        return self._tables[seconds].add(self._worker, window & _MOST, hash(key))


class _Table:
    def __init__(self, workers: int) -> None:
        size = _CELLS * _BYTES_OF_A_CELL
        memory = memoryview(mmap.mmap(-1, workers * size))
        self._parts = [memory[at * size : (at + 1) * size].cast("I") for at in range(workers)]
        """Of each worker: the number of its window, and two rows of counters."""
        self._empty = memoryview(bytes(size)).cast("I")

    def add(self, worker: int, window: int, hashed: int) -> int:
        own = self._parts[worker]
        if own[0] != window:
            own[:] = self._empty
            own[0] = window
        one, two = 1 + hashed % _WIDTH, 1 + _WIDTH + (hashed >> 32) % _WIDTH
        own[one] = min(own[one] + 1, _MOST)
        own[two] = min(own[two] + 1, _MOST)
        in_one = in_two = 0
        for part in self._parts:
            if part[0] == window:
                in_one += part[one]
                in_two += part[two]
        return min(in_one, in_two)
