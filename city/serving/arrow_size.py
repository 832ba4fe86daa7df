"""Computes the unpacked size of an Arrow body from its headers. Nothing is decompressed.

Source: Arrow's Message.fbs, Schema.fbs and File.fbs, as FlatBuffers.
"""

import struct
from collections.abc import Iterator

from city.serving.sizes import MOST_HEADER_BYTES, MOST_PARTS, BodyFormatError, Size, check_not_negative

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_CONTINUES = 0xFFFFFFFF
_VIEW_BYTES = 16  # the most that a value takes in a column: a text's view
Message = tuple["_Table", int, int]
"""A message's metadata, and the begin and end of its body as offsets."""


def arrow_size(body: bytes, is_file: bool) -> Size:
    """Computes the unpacked size of an Arrow body, in the file format or (`is_file` false) in the stream format. Raises
    BodyFormatError, also for nested columns."""
    try:
        messages = _file_messages(body) if is_file else _stream_messages(body)
        return _arrow_size(body, messages)
    except (IndexError, struct.error) as error:
        raise BodyFormatError(f"its headers cannot be followed ({type(error).__name__})") from None


def _arrow_size(body: bytes, messages: Iterator[Message]) -> Size:
    rows = values = total = parts = schemas = 0
    for message, begin, end in messages:
        kind, header = message.byte(1), message.table(2)
        if kind == _SCHEMA:
            schemas += 1
            if schemas > 1:
                raise BodyFormatError("it has more than one schema")
            _check_flat(header)
            continue
        if kind not in (_DICTIONARY, _BATCH):
            raise BodyFormatError("it has messages that are neither rows nor a dictionary")
        batch = header.table(1) if kind == _DICTIONARY else header
        lengths = [length for length, _ in batch.pairs(1)]
        buffers = batch.pairs(2)
        parts += 1 + len(lengths) + len(buffers)
        if parts > MOST_PARTS:
            raise BodyFormatError(f"it has more than {MOST_PARTS:,} buffers: write larger batches")
        if any(not 0 <= count <= len(buffers) for count in batch.integers(4)):
            raise BodyFormatError("it counts buffers that it has not")
        largest = max([check_not_negative(batch.integer(0)), *map(check_not_negative, lengths)])
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
        raise BodyFormatError("a buffer lies outside of its message")
    if not is_compressed or not length:
        return length
    (claimed,) = struct.unpack_from("<q", body, begin + offset)
    return length if claimed == -1 else check_not_negative(claimed)


def _check_flat(schema: "_Table") -> None:
    for column in schema.tables(1):
        if column.tables(5):
            raise BodyFormatError("it has nested columns: send flat ones")


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
        raise BodyFormatError("it does not begin and end as an Arrow file does")
    length = struct.unpack_from("<i", body, len(body) - 10)[0]
    if not 0 < length <= min(MOST_HEADER_BYTES, len(body) - 18):
        raise BodyFormatError(f"its footer is of {length:,} bytes")
    footer = _Table.root(body[len(body) - 10 - length : len(body) - 10])
    _check_flat(footer.table(1))
    for number in (2, 3):
        for offset in footer.blocks(number):
            message, begin, end = _read_message(body, check_not_negative(offset))
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
        raise BodyFormatError(f"a message's header is of {length:,} bytes")
    message = _Table.root(body[at : at + length])
    begin = at + length
    end = begin + check_not_negative(message.integer(3))
    if end > len(body):
        raise BodyFormatError("it is cut off")
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
            raise BodyFormatError("a header is missing")
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
            raise BodyFormatError("a list is longer than its header")
        return at + 4, count

    def _read(self, form: str, at: int) -> int:
        if at < 0:
            raise BodyFormatError("a header points outside of itself")
        value: int = struct.unpack_from(form, self._data, at)[0]
        return value
