"""Sources that are read once for all processes of this machine: here they are read, and every part is sent its own documents.

Otherwise every part reads all of its source and passes over the others' documents, and unpacking an .xz takes a quarter of the time of
cleaning it. A part's process connects, says its rank and gets its documents in pieces; what is read ahead is bounded.
"""

import contextlib
import functools
import multiprocessing
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener

from kitae.text.format import NOTHING, Found

PIECE = 1 << 18
"""Characters sent together."""
AHEAD = 1 << 23
"""Characters read ahead, for all parts of a source together."""
Row = tuple[int, Found, str | None]
"""Number in the source, document, and why it is dropped, if it is."""


class Group:
    """Parts of one source that are at work together, fed from one reading of it. `ranks` are theirs, by number of the part.

    Every one of them must be asked for at some time: what is read for it waits for it.
    """

    def __init__(self, read: Callable[[], Iterator[Row]], part_of: Callable[[int], int], ranks: Mapping[int, int]) -> None:
        self._read, self._part_of, self._ranks = read, part_of, dict(ranks)
        self._ready: dict[int, deque[tuple[int, list[Row]]]] = {rank: deque() for rank in ranks.values()}
        self._ahead = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._over = self._stopped = False
        self.error: BaseException | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Whom it feeds."""
        return tuple(self._ready)

    def start(self) -> None:
        """Begin to read, if that is not done."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._fill, daemon=True)
                self._thread.start()

    def pieces(self, rank: int) -> Iterator[list[Row]]:
        """A rank's documents in order. Raises EOFError when the reading failed or was stopped."""
        self.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready[rank] or self._over)
                if self.error is not None or self._stopped:
                    raise EOFError  # never an end, which would pass for a complete part
                if not self._ready[rank]:
                    return
                size, piece = self._ready[rank].popleft()
                self._ahead -= size
                self._changed.notify_all()
            yield piece

    def close(self) -> None:
        """Stop reading, and wait for its end."""
        with self._changed:
            self._over = self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _fill(self) -> None:
        making: dict[int, tuple[int, list[Row]]] = {}
        try:
            for number, found, drop in self._read():
                if self._over:
                    return
                rank = self._ranks.get(self._part_of(number))
                if rank is not None:
                    size, piece = making.pop(rank, (0, []))
                    found = _portable(found, drop)
                    piece.append((number, found, drop))
                    making[rank] = (size + _size(found), piece)
                    if making[rank][0] >= PIECE:
                        self._put(rank, *making.pop(rank))
            for rank, (size, piece) in making.items():
                self._put(rank, size, piece)
        except BaseException as error:  # whatever it is, `serve` raises it where it is waited for
            self.error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _put(self, rank: int, size: int, piece: list[Row]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ahead < AHEAD or self._over)
            self._ready[rank].append((size, piece))
            self._ahead += size
            self._changed.notify_all()


def _portable(found: Found, drop: str | None) -> Found:
    """What a process has to know of a document: a text that is made late only if it is wanted."""
    text = "" if drop and not isinstance(found.text, str) else found.text
    return found._replace(text=text, metadata=NOTHING)


def _size(found: Found) -> int:
    text = found.text.args if isinstance(found.text, functools.partial) else (found.text,)
    return 64 + sum(len(each) for each in text if isinstance(each, str))


@contextlib.contextmanager
def serve(groups: Sequence[Group]) -> Iterator[str]:
    """Feed the parts of one group or more as long as the block lasts; gives the address to `ask`. Raises what a reading raised."""
    with Listener(backlog=128, authkey=bytes(multiprocessing.current_process().authkey)) as listener:
        address = str(listener.address)
        thread = threading.Thread(target=_accept, args=(listener, {rank: group for group in groups for rank in group.ranks}), daemon=True)
        thread.start()
        groups[0].start()  # while the processes start
        try:
            yield address
        except Exception:
            for group in groups:
                if group.error is not None:
                    raise group.error from None
            raise
        finally:
            for group in groups:
                group.close()
            with _connected(address) as connection:
                connection.send(None)
            thread.join()


def _accept(listener: Listener, groups: Mapping[int, Group]) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, multiprocessing.AuthenticationError):  # a process that died meanwhile
            connection = listener.accept()
            rank = connection.recv()
            if rank is None:
                connection.close()
                return
            threading.Thread(target=_send, args=(connection, groups[rank], rank), daemon=True).start()


def _send(connection: Connection, group: Group, rank: int) -> None:
    with connection, contextlib.suppress(OSError, EOFError):  # closed without an end: the process that asks fails, or is dead
        for piece in group.pieces(rank):
            connection.send(piece)
        connection.send(None)


def _connected(address: str) -> Connection:
    return Client(address, authkey=bytes(multiprocessing.current_process().authkey))


def ask(address: str, rank: int) -> Iterator[Row]:
    """The documents of a rank, in its process. Raises EOFError when their reading failed or was stopped."""
    with _connected(address) as connection:
        connection.send(rank)
        while (piece := connection.recv()) is not None:
            yield from piece
