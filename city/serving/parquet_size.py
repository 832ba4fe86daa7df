"""Computes the unpacked size of a Parquet body from its headers. Nothing is decompressed.

Source: the Thrift definition of apache/parquet-format, in Thrift's compact protocol.
"""

import struct
from collections.abc import Iterator
from typing import Any

from city.serving.sizes import MOST_HEADER_BYTES, MOST_PARTS, BodyFormatError, Size, check_not_negative

_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 8, 4: 4, 5: 8, 6: 16, 7: 16}
"""Bytes of a value by physical type. For texts and binaries (6, 7) it is the size of the view in the column."""
_DELTA_BYTE_ARRAY = 7  # each value may repeat the previous one, so a few bytes could unpack to terabytes
_LONGEST_FIXED = 32
_REPEATED = 2
_MOST_PAGE_HEADER = 65_536
"""Limit of a page's header, in bytes. The header may contain statistics of the page, with texts of some length."""


def parquet_size(body: bytes) -> Size:
    """Computes the unpacked size of a Parquet body. Raises BodyFormatError, also for nested columns."""
    try:
        return _parquet_size(body)
    except (IndexError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise BodyFormatError(f"its headers cannot be followed ({type(error).__name__})") from None


def _parquet_size(body: bytes) -> Size:
    if len(body) < 12 or body[:4] != b"PAR1" or body[-4:] != b"PAR1":
        raise BodyFormatError("it does not begin and end as Parquet does")
    length = struct.unpack_from("<I", body, len(body) - 8)[0]
    if length > min(MOST_HEADER_BYTES, len(body) - 12):
        raise BodyFormatError(f"its footer is of {length:,} bytes")
    footer = _Thrift(body, len(body) - 8 - length).struct()
    for element in footer[2][1:]:
        if element.get(5) or element.get(3) == _REPEATED:
            raise BodyFormatError("it has nested columns: send flat ones")
        if element.get(2, 0) > _LONGEST_FIXED:
            raise BodyFormatError("it has long values of a fixed length: send them as text")
    counts, total, pages, packed = [footer[3]], 0, 0, 0
    for group in footer.get(4, []):
        counts.append(group[3])
        for chunk in group[1]:
            column = chunk[3]
            values, packed = 0, packed + check_not_negative(column[7])
            if packed > len(body):
                raise BodyFormatError("its columns are longer than it is")
            for page in _page_headers(body, column.get(11, column[9]), column[7]):
                pages += 1
                total += check_not_negative(page[2])
                values += check_not_negative(_count_page_values(page))
                counts.append(page.get(7, {}).get(1, 0))  # number of values of a dictionary page
                if pages > MOST_PARTS:
                    raise BodyFormatError(f"it has more than {MOST_PARTS:,} pages: write larger ones")
            counts += [column[5], values]
            total += max(values, check_not_negative(group[3])) * _WIDTHS[column[1]]
    return Size(max(map(check_not_negative, counts)), total)


def _page_headers(body: bytes, at: int, length: int) -> Iterator[dict[int, Any]]:
    """Yields the headers of a column chunk's pages."""
    end = at + check_not_negative(length)
    if not 0 <= at <= end <= len(body):
        raise BodyFormatError("a column lies outside of it")
    while at < end:
        reader = _Thrift(body[at : min(at + _MOST_PAGE_HEADER, end)], 0)
        page = reader.struct()
        yield page
        at += reader.at + check_not_negative(page[3])


def _count_page_values(page: dict[int, Any]) -> int:
    """Returns the number of values of a data page, and 0 for a dictionary page."""
    header = page.get(5) or page.get(8)
    if header is None:
        return 0
    if header[2 if 5 in page else 4] == _DELTA_BYTE_ARRAY:
        raise BodyFormatError("it has pages of the encoding DELTA_BYTE_ARRAY: write them plain, or with a dictionary")
    count: int = header[1]
    return count


class _Thrift:
    """Reads Thrift's compact protocol. A struct becomes a dict of its fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 20:
            raise BodyFormatError("its headers are nested too deeply")
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
        raise BodyFormatError(f"a header has the unknown type {kind}")

    def _check_count(self, count: int) -> int:
        if count > len(self._data) - self.at:  # each element takes at least one byte
            raise BodyFormatError("a list is longer than the body")
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
        raise BodyFormatError("a number is too long")

    def _read_integer(self) -> int:
        value = self._read_varint()
        return value >> 1 ^ -(value & 1)
