"""Computes the unpacked size of a Parquet or Arrow body from its headers. Nothing is decompressed.

The headers of every page (Parquet) and of every buffer (Arrow) are read, not only the file's own summary, because a
reader allocates memory by these headers. Formats: Parquet's Thrift definition (apache/parquet-format) in Thrift's
compact protocol, and Arrow's Message.fbs, Schema.fbs and File.fbs as FlatBuffers.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_HEADER_BYTES = 1_000_000
"""Limit of a footer and of a message's metadata. It suffices for about 10,000 columns."""
MOST_PARTS = 50_000
"""Most pages or buffers of a body."""


class Unreadable(ValueError):
    """The body violates its format, or uses a part of the format that is not supported."""


@dataclass(frozen=True)
class Size:
    """The unpacked size of a body. `rows` is the largest count that any header claims. `bytes` is the size of all pages
    or buffers together with the columns made from them."""

    rows: int
    bytes: int


def parquet_size(body: bytes) -> Size:
    """Computes the unpacked size of a Parquet body. Raises Unreadable, also for nested columns."""
    try:
        return _parquet_size(body)
    except (IndexError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"its headers cannot be followed ({type(error).__name__})") from None


def arrow_size(body: bytes, is_file: bool) -> Size:
    """Computes the unpacked size of an Arrow body, in the file format or (`is_file` false) in the stream format. Raises
    Unreadable, also for nested columns."""
    try:
        messages = _file_messages(body) if is_file else _stream_messages(body)
        return _arrow_size(body, messages)
    except (IndexError, struct.error) as error:
        raise Unreadable(f"its headers cannot be followed ({type(error).__name__})") from None


# Parquet

_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 8, 4: 4, 5: 8, 6: 16, 7: 16}
"""Bytes of a value by physical type. For texts and binaries (6, 7) it is the size of the view in the column."""
_DELTA_BYTE_ARRAY = 7  # each value may repeat the previous one, so a few bytes could unpack to terabytes
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
    counts, total, pages, packed = [footer[3]], 0, 0, 0
    for group in footer.get(4, []):
        counts.append(group[3])
        for chunk in group[1]:
            column = chunk[3]
            values, packed = 0, packed + _check_not_negative(column[7])
            if packed > len(body):
                raise Unreadable("its columns are longer than it is")
            for page in _page_headers(body, column.get(11, column[9]), column[7]):
                pages += 1
                total += _check_not_negative(page[2])
                values += _check_not_negative(_count_page_values(page))
                counts.append(page.get(7, {}).get(1, 0))  # number of values of a dictionary page
                if pages > MOST_PARTS:
                    raise Unreadable(f"it has more than {MOST_PARTS:,} pages: write larger ones")
            counts += [column[5], values]
            total += max(values, _check_not_negative(group[3])) * _WIDTHS[column[1]]
    return Size(max(map(_check_not_negative, counts)), total)


_MOST_PAGE_HEADER = 65_536
"""Limit of a page's header, in bytes. The header may contain statistics of the page, with texts of some length."""


def _page_headers(body: bytes, at: int, length: int) -> Iterator[dict[int, Any]]:
    """Yields the headers of a column chunk's pages."""
    end = at + _check_not_negative(length)
    if not 0 <= at <= end <= len(body):
        raise Unreadable("a column lies outside of it")
    while at < end:
        reader = _Thrift(body[at : min(at + _MOST_PAGE_HEADER, end)], 0)
        page = reader.struct()
        yield page
        at += reader.at + _check_not_negative(page[3])


def _count_page_values(page: dict[int, Any]) -> int:
    """Returns the number of values of a data page, and 0 for a dictionary page."""
    header = page.get(5) or page.get(8)
    if header is None:
        return 0
    if header[2 if 5 in page else 4] == _DELTA_BYTE_ARRAY:
        raise Unreadable("it has pages of the encoding DELTA_BYTE_ARRAY: write them plain, or with a dictionary")
    count: int = header[1]
    return count


def _check_not_negative(value: int) -> int:
    if value < 0:
        raise Unreadable("it has a negative size")
    return value


class _Thrift:
    """Reads Thrift's compact protocol. A struct becomes a dict of its fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 20:
            raise Unreadable("its headers are nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._read_byte():
            number = number + (head >> 4) if head >> 4 else self._read_integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._read_value(kind, depth)
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):  # a boolean in a list is a byte
            return self._read_byte()
        if kind in (4, 5, 6):
            return self._read_integer()
        if kind == 7:
            return self._read_bytes(8)
        if kind == 8:
            return self._read_bytes(self._read_varint())
        if kind in (9, 10):
            head = self._read_byte()
            count = head >> 4 if head >> 4 < 15 else self._read_varint()
            return [self._read_value(head & 15, depth + 1) for _ in range(self._check_count(count))]
        if kind == 11:
            count = self._check_count(self._read_varint())
            kinds = self._read_byte() if count else 0
            return [(self._read_value(kinds >> 4, depth), self._read_value(kinds & 15, depth)) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise Unreadable(f"a header has the unknown type {kind}")

    def _check_count(self, count: int) -> int:
        if count > len(self._data) - self.at:  # each element takes at least one byte
            raise Unreadable("a list is longer than the body")
        return count

    def _read_byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _read_bytes(self, count: int) -> bytes:
        value = self._data[self.at : self.at + self._check_count(count)]
        self.at += count
        return value

    def _read_varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._read_byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Unreadable("a number is too long")

    def _read_integer(self) -> int:
        value = self._read_varint()
        return value >> 1 ^ -(value & 1)


# Arrow

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_CONTINUES = 0xFFFFFFFF
_VIEW_BYTES = 16  # the most that a value takes in a column: a text's view
Message = tuple["_Table", int, int]
"""A message's metadata, and the begin and end of its body as offsets."""


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
        largest = max([_check_not_negative(batch.integer(0)), *map(_check_not_negative, lengths)])
        if kind == _BATCH:
            rows += largest
        else:
            values = max(values, largest)
        total += _VIEW_BYTES * sum(lengths)
        is_compressed = bool(batch.field(3))
        total += sum(_unpacked_bytes(body, begin, end, *buffer, is_compressed) for buffer in buffers)
    return Size(max(rows, values), total)


def _unpacked_bytes(body: bytes, begin: int, end: int, offset: int, length: int, is_compressed: bool) -> int:
    """Returns the size of a buffer after decompression. `begin` and `end` are the bounds of the message's body."""
    if offset < 0 or length < 0 or begin + offset + length > end:
        raise Unreadable("a buffer lies outside of its message")
    if not is_compressed or not length:
        return length
    (claimed,) = struct.unpack_from("<q", body, begin + offset)
    return length if claimed == -1 else _check_not_negative(claimed)


def _check_flat(schema: "_Table") -> None:
    for column in schema.tables(1):
        if column.tables(5):
            raise Unreadable("it has nested columns: send flat ones")


def _stream_messages(body: bytes) -> Iterator[Message]:
    at = 0
    while at + 8 <= len(body):
        message, begin, end = _read_message(body, at)
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
            message, begin, end = _read_message(body, _check_not_negative(offset))
            if message is not None:
                yield message, begin, end


def _read_message(body: bytes, at: int) -> tuple["_Table | None", int, int]:
    (length,) = struct.unpack_from("<I", body, at)
    at += 4
    if length == _CONTINUES:
        (length,) = struct.unpack_from("<I", body, at)
        at += 4
    if not length:  # end of the stream
        return None, at, at
    if length > min(MOST_HEADER_BYTES, len(body) - at):
        raise Unreadable(f"a message's header is of {length:,} bytes")
    message = _Table.root(body[at : at + length])
    begin = at + length
    end = begin + _check_not_negative(message.integer(3))
    if end > len(body):
        raise Unreadable("it is cut off")
    return message, begin, end


class _Table:
    """A FlatBuffers table. Fields have the numbers of their order in the schema."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._read("<i", at)
        self._fields_bytes = self._read("<H", self._fields)

    @staticmethod
    def root(data: bytes) -> "_Table":
        return _Table(data, struct.unpack_from("<I", data, 0)[0])

    def field(self, number: int) -> int:
        """Returns the offset of a field, or 0 if it is not set."""
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
        at, count = self._find_vector(number, 4)
        places = range(at, at + 4 * count, 4)
        return [_Table(self._data, place + self._read("<I", place)) for place in places]

    def integers(self, number: int) -> list[int]:
        at, count = self._find_vector(number, 8)
        return list(struct.unpack_from(f"<{count}q", self._data, at))

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Returns a vector of structs of two long integers: field nodes (length, nulls) or buffers (offset, length)."""
        at, count = self._find_vector(number, 16)
        values = struct.unpack_from(f"<{2 * count}q", self._data, at)
        return list(zip(values[::2], values[1::2], strict=True))

    def blocks(self, number: int) -> list[int]:
        """Returns the offsets of a file's blocks (offset, metadata's length, body's length)."""
        at, count = self._find_vector(number, 24)
        return [self._read("<q", place) for place in range(at, at + 24 * count, 24)]

    def _find_vector(self, number: int, width: int) -> tuple[int, int]:
        """Returns the offset of a vector's first element and the number of its elements, which have `width` bytes."""
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
