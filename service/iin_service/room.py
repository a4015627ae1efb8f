"""What a replica holds for its calls, in bytes and places, and how much of it there may be."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from iin_service.errors import Overloaded

__all__ = ["Kept", "Room"]

# Of all requests under way in a replica. Half as many of the answers that streams keep; a quarter of what analyses work
# with, and of the requests of Sample and Traverse where a large one comes: small ones may come to as much again.
MAX_BYTES_HELD = 512 * 1024 * 1024
MAX_STREAMS = 256  # open at once: each holds a place of the replica, busy or not


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
        """A message of `size` bytes is read, and waits until it may begin."""
        if self._open:
            self.waiting += size
            self._room.waits(size)

    def begun(self, size: int, most: int) -> None:
        """It begins, and keeps `most` bytes for its answer until that is there: no answer to it has more."""
        self.messages += 1
        self.read(-size)
        self._keep(most)

    def answered(self, size: int, most: int) -> None:
        """There is an answer of `size` bytes in place of the `most` that were kept for it."""
        self._keep(size - most)

    def taken(self, size: int) -> None:
        """An answer of `size` bytes is the caller's."""
        self.messages -= 1
        self._keep(-size)

    def dropped(self) -> None:
        """All of it is let go. What its tasks tell from now on counts no more: one may outlive its cancellation."""
        self.messages = 0
        self.read(-self.waiting)
        self._keep(-self.bytes)
        self._open = False

    def _keep(self, size: int) -> None:
        if self._open:
            self.bytes += size
            self._room.keep(size)


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
        """Count so many bytes that an analysis works with beside its request; a lone one is always let in.

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
        """A place for a stream; who leaves it lets go of all that it keeps, and of `size` bytes of its one request.

        These count by themselves: the answers that streams keep may fill their room for as long as there is work.

        Raises:
            Overloaded: where there is none left, or no room for a request that is more than a place's share of it.

        """
        if self._streams >= MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} streams are open, as many as may be; retry later")
        most = MAX_BYTES_HELD // 4
        if size > most // MAX_STREAMS and self._requests and self._requests + size > most:
            told = f"streams of answers hold requests of {self._requests} bytes, at most {most} with a large one"
            raise Overloaded(f"{told}; retry later")
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
        """Whether a request of a stream may begin; one at a time always may, whoever else takes no answers."""
        if kept.messages and self._kept + most > MAX_BYTES_HELD // 2:
            return False
        return not self._bytes or self._bytes + size <= MAX_BYTES_HELD // 2

    def waits(self, size: int) -> None:
        """Count so many bytes of messages more, or less, that are read and wait until they may begin."""
        self._waiting += size
        if size < 0:
            self._left.set()

    def keep(self, size: int) -> None:
        """Count so many bytes more, or less, that streams keep."""
        self._kept += size
        if size < 0:
            self._left.set()
