"""What a replica holds for its calls, in bytes and streams, and the bounds of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from iin_service.errors import Overloaded

__all__ = ["Kept", "Room"]

# Bytes of all requests under way in a replica. Half of it bounds the answers that streams keep; a quarter what analyses
# work with, and the requests of Sample and Traverse once a large one comes: small ones may add up to as much again.
MAX_BYTES_HELD = 512 * 1024 * 1024
MAX_STREAMS = 256  # open at once, busy or not


class Kept:
    """What one stream has begun and its caller has not taken yet."""

    def __init__(self, room: "Room") -> None:
        """Nothing yet."""
        self._room = room
        self._open = True
        self.messages = self.bytes = self.waiting = 0
        self.turn = asyncio.Lock()
        """Held by the message that begins next: a later one that overtook it could keep what it waits for."""

    def read(self, size: int) -> None:
        """Count a message of `size` bytes that is read and waits until it may begin."""
        self._count(waiting=size)

    def begun(self, size: int, most: int) -> None:
        """A message begins, and keeps `most` bytes, those of its largest answer, until the answer is there."""
        self.messages += 1
        self._count(waiting=-size, kept=most)

    def answered(self, size: int, most: int) -> None:
        """An answer of `size` bytes takes the place of the `most` that were kept for it."""
        self._count(kept=size - most)

    def taken(self, size: int) -> None:
        """The caller has taken an answer of `size` bytes."""
        self.messages -= 1
        self._count(kept=-size)

    def dropped(self) -> None:
        """Give all of it back. Later calls of these methods count nothing: a task may outlive its cancellation."""
        self.messages = 0
        self._count(waiting=-self.waiting, kept=-self.bytes)
        self._open = False

    def _count(self, *, waiting: int = 0, kept: int = 0) -> None:
        if self._open:
            self.waiting += waiting
            self.bytes += kept
            self._room.count(waiting, kept)


class Room:
    """What one replica holds, and has left."""

    def __init__(self) -> None:
        """Nothing is held."""
        self._bytes = self._waiting = self._kept = self._requests = self._working = self._streams = 0
        self._left = asyncio.Event()
        """Set whenever a request begins or leaves, or an answer is taken."""

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Count the bytes of a request as held while it is worked on; a lone request is always let in."""
        if self._bytes and self._bytes + size > MAX_BYTES_HELD:
            raise Overloaded(f"requests of {self._bytes} bytes are under way, at most {MAX_BYTES_HELD}; retry later")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
            self._left.set()

    @contextmanager
    def works(self, size: int) -> Iterator[None]:
        """Count the bytes that an analysis works with beside its request; a lone analysis is always let in.

        Raises:
            Overloaded: where there is no room for them.

        """
        most = MAX_BYTES_HELD // 4
        if self._working and self._working + size > most:
            raise Overloaded(f"analyses work with {self._working} bytes, at most {most}; retry later")
        self._working += size
        try:
            yield
        finally:
            self._working -= size

    @contextmanager
    def opened(self, size: int = 0) -> Iterator[Kept]:
        """A place for a stream; at the end of the block the stream keeps nothing.

        `size` are the bytes of the one request of a stream of answers, which stays to the end. Such requests have a
        bound of their own: kept answers may fill theirs for as long as there is work.

        Raises:
            Overloaded: if no place is left, or no room for a request larger than one place's share of it.

        """
        if self._streams >= MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} streams are open, as many as may be; retry later")
        most = MAX_BYTES_HELD // 4
        if size > most // MAX_STREAMS and self._requests and self._requests + size > most:
            told = f"requests of open Sample and Traverse streams have {self._requests} bytes, at most {most}"
            raise Overloaded(f"{told} beside one of {size}; retry later")
        kept = Kept(self)
        self._requests += size
        self._streams += 1
        try:
            yield kept
        finally:
            self._streams -= 1
            kept.dropped()
            self._requests -= size

    async def read_on(self, kept: Kept) -> None:
        """Wait until another message of a stream may be read: there is room, or all before it have begun."""
        while kept.waiting and self._waiting + self._bytes > MAX_BYTES_HELD // 2:
            self._left.clear()
            await self._left.wait()

    async def begun(self, size: int, most: int, kept: Kept) -> None:
        """Wait for room for a message of a stream, after those before it."""
        async with kept.turn:
            while not self._fits(size, most, kept):
                self._left.clear()
                await self._left.wait()
            kept.begun(size, most)

    def _fits(self, size: int, most: int, kept: Kept) -> bool:
        """Whether a message of a stream may begin; one of each stream always may, whatever answers others keep."""
        if kept.messages and self._kept + most > MAX_BYTES_HELD // 2:
            return False
        return not self._bytes or self._bytes + size <= MAX_BYTES_HELD // 2

    def count(self, waiting: int, kept: int) -> None:
        """Count bytes more, or less, of messages that wait until they may begin, and of answers that streams keep."""
        self._waiting += waiting
        self._kept += kept
        if waiting < 0 or kept < 0:
            self._left.set()
