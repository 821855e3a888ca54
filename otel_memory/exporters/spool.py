"""The spool: what waits for Kafka, on disk, so that it outlives the process.

Owns the folder that ``OTEL_PYTHON_MEMORY_KAFKA_SPOOL_PATH`` names. Each process has a folder of its own in it, for as
long as it lives under ``flock``. Who finds a folder whose lock is free takes it over, and as a lock is held by one at a
time, exactly one does: the process that was restarted, or a sibling. ::

    <spool>/<time>-<pid>-<random>/lock        locked while its owner lives; holds how far each lane was sent
                                  0-00000001  a segment of lane 0: records, one after the other

A record is a mark, its length, a checksum (CRC-32), then topic, key and value. A record that was being written when
the process was killed is found by its length or its checksum and skipped; so is one that the disk has damaged. Nothing
is synced to the disk itself: the spool survives any end of the process, not the loss of power within seconds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_memory.exporters.backlog import SIGNALS, Dropped, Record, Window

MARK: Final = b"\xffOMS"
LOCK: Final = "lock"
NEW: Final = ".new-"
SPOOL_FULL: Final = "spool_full"
SPOOL_FAILED: Final = "spool_failed"
SPOOL_DAMAGED: Final = "spool_damaged"

LANE_SHARES: Final = (1.0, 0.9, 0.8)
"""How much of the bound a lane may fill, so that metrics never keep an event out."""

MOST_SEGMENT_BYTES: Final = 4 * 2**20
LEAST_SEGMENT_BYTES: Final = 64 * 2**10
MOST_ADOPTED: Final = 32
STALE_SECONDS: Final = 3600.0
"""Age from which a folder that was never finished making is cleared away."""

_HEAD: Final = struct.Struct("<4sIII")  # mark, bytes of the body, checksum of the body, items
_BODY: Final = struct.Struct("<BBB")  # lane, lengths of topic and key
_PLACE: Final = struct.Struct("<IQ")  # segment, offset
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def pack(record: Record) -> bytes:
    """``record`` as it stands in a segment."""
    topic = record.topic.encode()
    body = _BODY.pack(record.lane, len(topic), len(record.key)) + topic + record.key + record.value
    return _HEAD.pack(MARK, len(body), _checksum(body, record.items), record.items) + body


def _checksum(body: bytes, items: int) -> int:
    return zlib.crc32(body, items)


def unpack(data: bytes, start: int = 0) -> tuple[Record, int] | None:
    """The record at ``start`` and where the next one begins; None if none stands there whole."""
    if start + _HEAD.size > len(data):
        return None
    mark, length, checksum, items = _HEAD.unpack_from(data, start)
    begin = start + _HEAD.size
    body = data[begin : begin + length]
    if mark != MARK or len(body) != length or _checksum(body, items) != checksum or length < _BODY.size:
        return None
    lane, topic, key = _BODY.unpack_from(body)
    at = _BODY.size
    if lane >= len(SIGNALS) or at + topic + key > length:
        return None
    name = body[at : at + topic].decode("utf-8", "replace")
    return Record(lane, name, body[at + topic : at + topic + key], body[at + topic + key :], items), begin + length


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a lane."""

    segment: int
    offset: int


class Lane:
    """The segments of one lane of one folder. Not safe for threads by itself."""

    def __init__(self, folder: Path, number: int, place: Place) -> None:
        self._folder = folder
        self.number = number
        self.place = place
        """Up to where it was sent."""
        self.sizes = {segment: path.stat().st_size for segment, path in sorted(_segments(folder, number))}
        self.records = 0
        """Written here and not settled; what an earlier process wrote is not counted."""
        first = min(self.sizes, default=place.segment)
        if place.segment not in self.sizes and place.segment < first:
            self.place = Place(first, 0)

    def path(self, segment: int) -> Path:
        """The file of one segment."""
        return self._folder / f"{self.number}-{segment:08d}"

    @property
    def bytes_waiting(self) -> int:
        """Bytes that were not settled."""
        return max(0, sum(size for segment, size in self.sizes.items() if segment >= self.place.segment) - self.offset)

    @property
    def offset(self) -> int:
        """How far into its segment the place is."""
        return self.place.offset if self.place.segment in self.sizes else 0

    @property
    def disk_bytes(self) -> int:
        """Bytes of its files."""
        return sum(self.sizes.values())

    def append(self, data: bytes, segment_bytes: int) -> None:
        """Write ``data`` whole or not at all.

        Raises:
            OSError: it could not be written.
        """
        last = max(self.sizes, default=0)
        if not last or self.sizes[last] + len(data) > segment_bytes:
            last = max(last, self.place.segment) + 1
        size = self.sizes.get(last, 0)
        descriptor = os.open(self.path(last), _FLAGS | os.O_CREAT, 0o600)
        try:
            written = 0
            try:
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], size + written)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        self.sizes[last] = size + len(data)
        self.records += 1

    def read(self, most_bytes: int) -> Iterator[tuple[Record | None, Place]]:
        """Records from the place on, and the place after each; None for bytes that are no record any more."""
        taken = 0
        for segment in sorted(segment for segment in self.sizes if segment >= self.place.segment):
            base = self.place.offset if segment == self.place.segment else 0
            size = self.sizes[segment]
            if base >= size:
                continue
            try:
                data = self._bytes(segment, base, size)
            except OSError:
                yield None, Place(segment, size)  # it is gone, or can't be read: never again the first
                continue
            at = 0
            while base + at < size:
                found = unpack(data, at)
                if found is None:
                    at = self._next(data, at)
                    # Of a file that became shorter than it was, nothing is left.
                    yield None, Place(segment, base + at if at < len(data) else size)
                    if at >= len(data):
                        break
                    continue
                record, at = found
                taken += record.size
                yield record, Place(segment, base + at)
                if taken >= most_bytes:
                    return

    def _bytes(self, segment: int, start: int, end: int) -> bytes:
        descriptor = os.open(self.path(segment), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pread(descriptor, end - start, start)
        finally:
            os.close(descriptor)

    @staticmethod
    def _next(data: bytes, start: int) -> int:
        """Where the next whole record begins; the end if there is none."""
        at = data.find(MARK, start + 1)
        while at >= 0:
            if unpack(data, at) is not None:
                return at
            at = data.find(MARK, at + 1)
        return len(data)

    def advance(self, place: Place) -> None:
        """All before ``place`` is settled; segments that are done with go."""
        self.place = place
        for segment in [segment for segment in self.sizes if segment < place.segment]:
            self._remove(segment)

    def release(self) -> None:
        """Remove files of which everything is settled, also the one that would be written next."""
        if not self.bytes_waiting:
            for segment in list(self.sizes):
                self._remove(segment)
                self.place = Place(segment + 1, 0)

    def _remove(self, segment: int) -> None:
        try:
            self.path(segment).unlink(missing_ok=True)
        except OSError:
            return  # a disk gone read-only: it goes on counting
        del self.sizes[segment]


class Folder:
    """One process's part of the spool: its lock and its lanes."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        places = self._places()
        self.lanes = [Lane(path, number, places[number]) for number in range(len(SIGNALS))]

    @classmethod
    def create(cls, spool: Path) -> Folder:
        """A folder of this process, locked before anybody else can see it.

        Raises:
            OSError: there is none to be had.
        """
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        hidden = spool / (NEW + name)
        hidden.mkdir(mode=0o700)
        descriptor = os.open(hidden / LOCK, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(hidden, spool / name)
            return cls(spool / name, descriptor)
        except OSError:
            os.close(descriptor)
            raise

    @classmethod
    def adopt(cls, path: Path) -> Folder | None:
        """The folder at ``path`` if its owner is dead and nobody else took it."""
        try:
            descriptor = os.open(path / LOCK, _FLAGS)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have just removed it: then this is the lock of a folder that is no more.
            if os.path.samestat(os.fstat(descriptor), os.stat(path / LOCK, follow_symlinks=False)):
                return cls(path, descriptor)
        except OSError:
            pass
        os.close(descriptor)
        return None

    def _places(self) -> list[Place]:
        data = os.pread(self._descriptor, 4 + _PLACE.size * len(SIGNALS), 0)
        if len(data) < 4 + _PLACE.size * len(SIGNALS) or zlib.crc32(data[4:]) != struct.unpack_from("<I", data)[0]:
            return [Place(0, 0)] * len(SIGNALS)  # from the start: sent twice is better than not at all
        return [Place(*_PLACE.unpack_from(data, 4 + _PLACE.size * lane)) for lane in range(len(SIGNALS))]

    def remember(self) -> None:
        """Write down how far each lane was sent. Where that fails, a successor sends some of it again."""
        places = b"".join(_PLACE.pack(lane.place.segment, lane.place.offset) for lane in self.lanes)
        try:
            os.pwrite(self._descriptor, struct.pack("<I", zlib.crc32(places)) + places, 0)
        except OSError:
            return

    @property
    def bytes_waiting(self) -> int:
        """Bytes of all lanes that were not settled."""
        return sum(lane.bytes_waiting for lane in self.lanes)

    def close(self) -> None:
        """Let go of the lock; without anything left, remove the folder first."""
        try:
            if not self.bytes_waiting:
                for lane in self.lanes:
                    lane.release()
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()
        except OSError:
            pass  # another process clears it away
        self.forget()

    def forget(self) -> None:
        """Close the lock's descriptor. In a forked child the parent goes on holding it."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class SpoolWindow:
    """Records of one lane of one folder, and the place after each of them."""

    records: Sequence[Record]
    places: Sequence[Place]
    folder: Folder
    lane: Lane
    damaged: Sequence[int]
    """For each record the stretches around it that are no records any more."""


class Spool:
    """All that this process has on disk: its own folder, made with the first record, and those that it took over."""

    def __init__(self, path: Path, max_bytes: int, dropped: Dropped) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._segment_bytes = min(MOST_SEGMENT_BYTES, max(LEAST_SEGMENT_BYTES, max_bytes // 16))
        self._dropped = dropped
        self._lock = threading.Lock()
        self._own: Folder | None = None
        self._adopted: list[Folder] = []
        self.last_error: OSError | None = None
        """Why the last record could not be written; None if it could."""

    # --- the writing side ---

    def put(self, record: Record) -> bool:
        """Append ``record``. False where the bound is reached or the disk fails: then it is dropped."""
        data = pack(record)
        with self._lock:
            reason = self._put(record.lane, data)
        if reason:
            self._dropped(record.signal, reason, record.items)
        return not reason

    def _put(self, lane: int, data: bytes) -> str:
        bound = self._max_bytes * LANE_SHARES[lane]
        if self._disk_bytes() + len(data) > bound:
            for folder in self._folders():
                for each in folder.lanes:
                    each.release()
                folder.remember()
            if self._disk_bytes() + len(data) > bound:
                return SPOOL_FULL
        try:
            if self._own is None:
                self._own = Folder.create(self._path)
            self._own.lanes[lane].append(data, self._segment_bytes)
        except OSError as error:
            self.last_error = error.with_traceback(None)
            if isinstance(error, FileNotFoundError) and self._own is not None:
                self._own.forget()  # somebody removed it; the next record makes another
                self._own = None
            return SPOOL_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else SPOOL_FAILED
        self.last_error = None
        return ""

    def _disk_bytes(self) -> int:
        return sum(lane.disk_bytes for folder in self._folders() for lane in folder.lanes)

    def _folders(self) -> list[Folder]:
        """Those of the dead first: theirs is older."""
        return [*self._adopted, *([self._own] if self._own else [])]

    # --- the sending side ---

    def take(self, most_bytes: int) -> SpoolWindow | None:
        """The most urgent lane that has something, of the oldest folder that has."""
        with self._lock:
            for number in range(len(SIGNALS)):
                for folder in self._folders():
                    lane = folder.lanes[number]
                    if lane.bytes_waiting and (window := self._window(folder, lane, most_bytes)) is not None:
                        return window
            return None

    def _window(self, folder: Folder, lane: Lane, most_bytes: int) -> SpoolWindow | None:
        records: list[Record] = []
        places: list[Place] = []
        damaged = [0]
        end = lane.place
        for record, place in lane.read(most_bytes):
            end = place
            if record is None:
                damaged[-1] += 1
                if places:
                    places[-1] = place  # passed together with the record before it
            else:
                if records:
                    damaged.append(0)
                records.append(record)
                places.append(place)
        if not records:
            lane.advance(end)
            folder.remember()
            self._tell_damaged(lane, damaged[0])
            self._clear(folder)
            return None
        return SpoolWindow(records, places, folder, lane, damaged)

    def settle(self, window: Window, count: int) -> None:
        """Remember that the first ``count`` were sent."""
        assert isinstance(window, SpoolWindow)
        if not count:
            return
        with self._lock:
            if window.folder not in self._folders():
                return  # closed meanwhile
            window.lane.records = max(0, window.lane.records - count)
            window.lane.advance(window.places[count - 1])
            window.folder.remember()
            self._tell_damaged(window.lane, sum(window.damaged[:count]))
            self._clear(window.folder)

    def _clear(self, folder: Folder) -> None:
        if folder is not self._own and not folder.bytes_waiting:
            self._adopted.remove(folder)
            folder.close()

    def _tell_damaged(self, lane: Lane, stretches: int) -> None:
        if stretches:
            self._dropped(SIGNALS[lane.number], SPOOL_DAMAGED, stretches)

    def adopt(self) -> int:
        """Take over the folders of dead processes. How many there were."""
        adopted = 0
        try:
            names = sorted(os.listdir(self._path))
        except OSError:
            return 0
        for name in names:
            path = self._path / name
            if name.startswith(NEW):
                _clear_stale(path)
                continue
            with self._lock:
                if len(self._adopted) >= MOST_ADOPTED:
                    break
                if any(folder.path == path for folder in self._folders()):
                    continue
                folder = Folder.adopt(path)
                if folder is None:
                    continue
                self._adopted.append(folder)
                adopted += 1
                self._clear(folder)
        return adopted

    @property
    def waiting(self) -> tuple[int, int]:
        """Records that this process wrote and bytes of all that was not sent."""
        with self._lock:
            records = sum(lane.records for lane in self._own.lanes) if self._own else 0
            return records, sum(folder.bytes_waiting for folder in self._folders())

    def abandon(self, reason: str) -> int:
        """Let go of the locks. Nothing is lost: what is left waits for whoever comes next."""
        with self._lock:
            for folder in self._folders():
                folder.close()
            self._own, self._adopted = None, []
        return 0

    def after_fork(self) -> None:
        """In the child: a folder of its own with its first record; the parent's stay the parent's."""
        for folder in self._folders():
            folder.forget()
        self._lock = threading.Lock()
        self._own, self._adopted = None, []


def _segments(folder: Path, lane: int) -> Iterator[tuple[int, Path]]:
    for path in folder.glob(f"{lane}-*"):
        number = path.name.partition("-")[2]
        if number.isdecimal():
            yield int(number), path


def _clear_stale(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            (path / LOCK).unlink(missing_ok=True)
            path.rmdir()
    except OSError:
        return
