"""What clients have not read of the answers to them: how much memory it takes in a process, and its bound."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from rookery.domain.tallies import Reading

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""All together that a process keeps of answers that were not read yet. A body that many are sent counts once."""


class Reader(Protocol):
    """A connection with an answer that was not read yet."""

    @property
    def owner(self) -> str:
        """The client, or the proxy that it comes through, as it is limited."""

    def kept(self) -> int:
        """Bytes that the transport keeps for it, now."""

    def bodies(self) -> Sequence[bytes]:
        """What else it is to send: all that it shares."""

    def cut(self) -> None:
        """Close it at once, and share nothing any more."""


class Unread:
    """The unread answers of a process."""

    def __init__(self) -> None:
        self._bytes = 0
        self._own: dict[Reader, int] = {}
        self._bodies: dict[int, int] = {}
        """By the address of a body that is being sent, how many connections send it."""
        self._cut = 0

    def hold(self, reader: Reader, size: int) -> None:
        """Note how many bytes a connection keeps for itself. Past the bound, some are closed."""
        self._bytes += size - self._own.pop(reader, 0)
        if size:
            self._own[reader] = size
            if self._bytes > MAX_UNREAD_BYTES:
                self._make_room()

    def share(self, body: bytes) -> None:
        """Note that one more connection is to send this body, which it holds until `unshare`."""
        many = self._bodies.get(id(body), 0)
        self._bodies[id(body)] = many + 1
        if not many:
            self._bytes += len(body)

    def unshare(self, body: bytes) -> None:
        """Note that one connection fewer is to send it."""
        many = self._bodies.pop(id(body)) - 1
        if many:
            self._bodies[id(body)] = many
        else:
            self._bytes -= len(body)

    def _make_room(self) -> None:
        """An eighth of all, so that thousands are not each looked through for one. First see what was read since.

        Those of the client that has most are closed first: others read large answers slowly, too.
        """
        for reader in self._own:
            size = reader.kept()
            self._bytes += size - self._own[reader]
            self._own[reader] = size
        if self._bytes <= MAX_UNREAD_BYTES:
            return
        weights = {reader: self._weight(reader) for reader in self._own}
        of_owners: Counter[str] = Counter()
        for reader, weight in weights.items():
            of_owners[reader.owner] += weight
        for reader in sorted(weights, key=lambda one: (of_owners[one.owner], weights[one]), reverse=True):
            if self._bytes <= MAX_UNREAD_BYTES * 7 // 8:
                break
            self._cut += 1
            self._bytes -= self._own.pop(reader)
            reader.cut()

    def _weight(self, reader: Reader) -> int:
        """Bytes that are freed when a connection is closed: its own, and the bodies that no other one sends."""
        return self._own[reader] + sum(len(body) for body in reader.bodies() if self._bodies.get(id(body)) == 1)

    def readings(self) -> Iterable[Reading]:
        """What is kept of answers, and how many connections were closed to make room."""
        yield Reading("answers_unread_bytes", "What is kept of answers that clients have not read yet.", self._bytes)
        yield Reading("answers_cut_total", "Connections closed because unread answers took too much memory.", self._cut)
