"""How large a Parquet or Arrow body will be once it is unpacked, by its headers alone: nothing is decompressed.

The headers of every page (Parquet) and of every buffer (Arrow) are followed, not only the file's own summary, for these
are what a reader allocates by. Formats: Parquet's Thrift definition (apache/parquet-format) in Thrift's compact
protocol, and Arrow's Message.fbs, Schema.fbs and File.fbs as FlatBuffers.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_HEADER_BYTES = 1_000_000
"""A footer or a message's metadata; some 10,000 columns."""
MOST_PARTS = 50_000
"""Pages or buffers of a body."""


class Unreadable(ValueError):
    """The body is not of its format, or of a part of it that is not read here."""


@dataclass(frozen=True)
class Size:
    """`rows` is the largest count that any header claims; `bytes` is of all pages or buffers, and of the columns made
    of them."""

    rows: int
    bytes: int


def parquet_size(body: bytes) -> Size:
    """Raises Unreadable, also for nested columns."""
    try:
        return _parquet_size(body)
    except (IndexError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"its headers cannot be followed ({type(error).__name__})") from None


def arrow_size(body: bytes, is_file: bool) -> Size:
    """Of the stream format, or of the file format. Raises Unreadable, also for nested columns."""
    try:
        messages = _file_messages(body) if is_file else _stream_messages(body)
        return _arrow_size(body, messages)
    except (IndexError, struct.error) as error:
        raise Unreadable(f"its headers cannot be followed ({type(error).__name__})") from None


# Parquet

_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 8, 4: 4, 5: 8, 6: 16, 7: 16}
"""Bytes a value by physical type: of texts and binaries (6, 7) the view that stands in the column."""
_DELTA_BYTE_ARRAY = 7  # each value may repeat the one before, so a few bytes could mean terabytes
_LONGEST_FIXED = 32
_REPEATED = 2


def _parquet_size(body: bytes) -> Size:
    if len(body) < 12 or body[:4] != b"PAR1" or body[-4:] != b"PAR1":
        raise Unreadable("it does not begin and end as Parquet does")
    length = struct.unpack_from("<I", body, len(body) - 8)[0]
    if length > min(MOST_HEADER_BYTES, len(body) - 12):
        raise Unreadable(f"its footer is of {length:,} bytes")
    footer = _Thrift(body, len(body) - 8 - length).struct()
    for element in footer[2][1:]:
        if element.get(5) or element.get(3) == _REPEATED:
            raise Unreadable("it has nested columns: send flat ones")
        if element.get(2, 0) > _LONGEST_FIXED:
            raise Unreadable("it has long values of a fixed length: send them as text")
    counts, total, pages, taken = [footer[3]], 0, 0, 0
    for group in footer.get(4, []):
        counts.append(group[3])
        for chunk in group[1]:
            column = chunk[3]
            values, taken = 0, taken + _not_negative(column[7])
            if taken > len(body):
                raise Unreadable("its columns are longer than it is")
            for page in _pages(body, column.get(11, column[9]), column[7]):
                pages += 1
                total += _not_negative(page[2])
                values += _not_negative(_page_values(page))
                counts.append(page.get(7, {}).get(1, 0))  # a dictionary's values
                if pages > MOST_PARTS:
                    raise Unreadable(f"it has more than {MOST_PARTS:,} pages: write larger ones")
            counts += [column[5], values]
            total += max(values, _not_negative(group[3])) * _WIDTHS[column[1]]
    return Size(max(map(_not_negative, counts)), total)


_MOST_PAGE_HEADER = 65_536
"""Bytes. Statistics of a page may be in it, a text of some length among them."""


def _pages(body: bytes, at: int, length: int) -> Iterator[dict[int, Any]]:
    """The headers of a column chunk's pages."""
    end = at + _not_negative(length)
    if not 0 <= at <= end <= len(body):
        raise Unreadable("a column lies outside of it")
    while at < end:
        reader = _Thrift(body[at : min(at + _MOST_PAGE_HEADER, end)], 0)
        page = reader.struct()
        yield page
        at += reader.at + _not_negative(page[3])


def _page_values(page: dict[int, Any]) -> int:
    """Of a data page; of a dictionary none."""
    header = page.get(5) or page.get(8)
    if header is None:
        return 0
    if header[2 if 5 in page else 4] == _DELTA_BYTE_ARRAY:
        raise Unreadable("it has pages of the encoding DELTA_BYTE_ARRAY: write them plain, or with a dictionary")
    count: int = header[1]
    return count


def _not_negative(value: int) -> int:
    if value < 0:
        raise Unreadable("it has a negative size")
    return value


class _Thrift:
    """Reads Thrift's compact protocol: a struct is a dict of its fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 20:
            raise Unreadable("its headers are nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):  # in a list, a boolean is a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._take(8)
        if kind == 8:
            return self._take(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(self._count(count))]
        if kind == 11:
            count = self._count(self._varint())
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4, depth), self._value(kinds & 15, depth)) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise Unreadable(f"a header has the unknown type {kind}")

    def _count(self, count: int) -> int:
        if count > len(self._data) - self.at:  # each takes a byte at least
            raise Unreadable("a list is longer than the body")
        return count

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _take(self, count: int) -> bytes:
        found = self._data[self.at : self.at + self._count(count)]
        self.at += count
        return found

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Unreadable("a number is too long")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


# Arrow

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_CONTINUES = 0xFFFFFFFF
_VIEW_BYTES = 16  # a value's place in a column: at most that of a text's view
Message = tuple["_Table", int, int]
"""A message's metadata, and where its body begins and ends."""


def _arrow_size(body: bytes, messages: Iterator[Message]) -> Size:
    rows = values = total = parts = schemas = 0
    for message, begin, end in messages:
        kind, header = message.byte(1), message.table(2)
        if kind == _SCHEMA:
            schemas += 1
            if schemas > 1:
                raise Unreadable("it has more than one schema")
            _check_flat(header)
            continue
        if kind not in (_DICTIONARY, _BATCH):
            raise Unreadable("it has messages that are neither rows nor a dictionary")
        batch = header.table(1) if kind == _DICTIONARY else header
        lengths = [length for length, _ in batch.pairs(1)]
        buffers = batch.pairs(2)
        parts += 1 + len(lengths) + len(buffers)
        if parts > MOST_PARTS:
            raise Unreadable(f"it has more than {MOST_PARTS:,} buffers: write larger batches")
        if any(not 0 <= count <= len(buffers) for count in batch.integers(4)):
            raise Unreadable("it counts buffers that it has not")
        largest = max([_not_negative(batch.integer(0)), *map(_not_negative, lengths)])
        if kind == _BATCH:
            rows += largest
        else:
            values = max(values, largest)
        total += _VIEW_BYTES * sum(lengths)
        is_compressed = bool(batch.field(3))
        total += sum(_unpacked(body, begin, end, *buffer, is_compressed) for buffer in buffers)
    return Size(max(rows, values), total)


def _unpacked(body: bytes, begin: int, end: int, offset: int, length: int, is_compressed: bool) -> int:
    """A buffer's bytes once it is unpacked."""
    if offset < 0 or length < 0 or begin + offset + length > end:
        raise Unreadable("a buffer lies outside of its message")
    if not is_compressed or not length:
        return length
    (claimed,) = struct.unpack_from("<q", body, begin + offset)
    return length if claimed == -1 else _not_negative(claimed)


def _check_flat(schema: "_Table") -> None:
    for column in schema.tables(1):
        if column.tables(5):
            raise Unreadable("it has nested columns: send flat ones")


def _stream_messages(body: bytes) -> Iterator[Message]:
    at = 0
    while at + 8 <= len(body):
        message, begin, end = _message(body, at)
        if message is None:
            return
        yield message, begin, end
        at = end


def _file_messages(body: bytes) -> Iterator[Message]:
    if len(body) < 22 or body[:6] != b"ARROW1" or body[-6:] != b"ARROW1":
        raise Unreadable("it does not begin and end as an Arrow file does")
    length = struct.unpack_from("<i", body, len(body) - 10)[0]
    if not 0 < length <= min(MOST_HEADER_BYTES, len(body) - 18):
        raise Unreadable(f"its footer is of {length:,} bytes")
    footer = _Table.root(body[len(body) - 10 - length : len(body) - 10])
    _check_flat(footer.table(1))
    for number in (2, 3):
        for offset in footer.blocks(number):
            message, begin, end = _message(body, _not_negative(offset))
            if message is not None:
                yield message, begin, end


def _message(body: bytes, at: int) -> tuple["_Table | None", int, int]:
    (length,) = struct.unpack_from("<I", body, at)
    at += 4
    if length == _CONTINUES:
        (length,) = struct.unpack_from("<I", body, at)
        at += 4
    if not length:  # the stream's end
        return None, at, at
    if length > min(MOST_HEADER_BYTES, len(body) - at):
        raise Unreadable(f"a message's header is of {length:,} bytes")
    message = _Table.root(body[at : at + length])
    begin = at + length
    end = begin + _not_negative(message.integer(3))
    if end > len(body):
        raise Unreadable("it is cut off")
    return message, begin, end


class _Table:
    """A FlatBuffers table: its fields by number, as the schema has them in order."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._fields_bytes = self._read("<H", self._fields)

    @staticmethod
    def root(data: bytes) -> "_Table":
        return _Table(data, struct.unpack_from("<I", data, 0)[0])

    def field(self, number: int) -> int:
        """Where a field is; 0 where it is not set."""
        entry = 4 + 2 * number
        offset = self._read("<H", self._fields + entry) if entry + 2 <= self._fields_bytes else 0
        return self._at + offset if offset else 0

    def byte(self, number: int) -> int:
        at = self.field(number)
        return self._read("<B", at) if at else 0

    def integer(self, number: int) -> int:
        at = self.field(number)
        return self._read("<q", at) if at else 0

    def table(self, number: int) -> "_Table":
        at = self.field(number)
        if not at:
            raise Unreadable("a header is missing")
        return _Table(self._data, at + self._read("<I", at))

    def tables(self, number: int) -> list["_Table"]:
        at, count = self._vector(number, 4)
        places = range(at, at + 4 * count, 4)
        return [_Table(self._data, place + self._read("<I", place)) for place in places]

    def integers(self, number: int) -> list[int]:
        at, count = self._vector(number, 8)
        return list(struct.unpack_from(f"<{count}q", self._data, at))

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Structs of two long integers: field nodes (length, nulls), buffers (offset, length)."""
        at, count = self._vector(number, 16)
        values = struct.unpack_from(f"<{2 * count}q", self._data, at)
        return list(zip(values[::2], values[1::2], strict=True))

    def blocks(self, number: int) -> list[int]:
        """The offsets of a file's blocks (offset, metadata's length, body's length)."""
        at, count = self._vector(number, 24)
        return [self._read("<q", place) for place in range(at, at + 24 * count, 24)]

    def _vector(self, number: int, width: int) -> tuple[int, int]:
        at = self.field(number)
        if not at:
            return 0, 0
        at += self._read("<I", at)
        count = self._read("<I", at)
        if count * width > len(self._data) - at - 4:
            raise Unreadable("a list is longer than its header")
        return at + 4, count

    def _read(self, form: str, at: int) -> int:
        if at < 0:
            raise Unreadable("a header points outside of itself")
        value: int = struct.unpack_from(form, self._data, at)[0]
        return value
