"""Reading tables from files: any encoding, compressed or not, with the line of whatever is wrong."""

import codecs
import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rookery.domain.errors import Failure, Malformed

csv.field_size_limit(1 << 20)


@dataclass(frozen=True, slots=True)
class Row:
    """A row and the line on which it ends."""

    line: int
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows. `header` is None where the first line is a row like the others."""

    header: Sequence[str] | None
    rows: Iterator[Row]

    def column(self, wanted: str) -> int:
        """Where a column is, by its name in the header or its number from 1.

        Raises:
            Malformed: `unknown_column`.
        """
        if self.header is not None and wanted in self.header:
            return self.header.index(wanted)
        if wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
            return int(wanted) - 1
        known = ", ".join(self.header) if self.header else "numbers from 1"
        raise Malformed("unknown_column", f"There is no column {wanted!r}; the file has {known}")


def at_line(line: int, failure: Failure) -> Malformed:
    """A failure with the line that caused it."""
    return Malformed(failure.code, f"line {line}: {failure.message}")


def cell(row: Row, column: int) -> str:
    """One cell.

    Raises:
        Malformed: `short_row`.
    """
    if column >= len(row.cells):
        raise at_line(row.line, Malformed("short_row", f"it has {len(row.cells)} columns, not {column + 1}"))
    return row.cells[column]


def open_table(path: Path, *, encoding: str, separator: str, header: bool, moved: Callable[[int], None]) -> Table:
    """Open a file of rows; one that ends in .gz is unpacked. `moved` is told how many more bytes of it were read.

    Raises:
        Malformed: `unreadable_file`, `unknown_encoding`; while reading `wrong_encoding`, `malformed_row`.
    """
    try:
        with suppress(UnicodeError):  # a byte is half a letter in some
            b" ".decode(encoding)  # unlike codecs.lookup this refuses what encodes no text, such as base64
    except LookupError:
        raise Malformed("unknown_encoding", f"There is no encoding {encoding!r}") from None
    try:
        raw = path.open("rb")
    except OSError as error:
        raise Malformed("unreadable_file", f"{path}: {(error.strerror or 'not readable').lower()}") from None
    rows = _rows(_lines(raw, path.suffix == ".gz", encoding, moved), separator)
    if not header:
        return Table(None, rows)
    first = next(rows, None)
    return Table(first.cells if first else (), rows)


def _rows(lines: Iterator[str], separator: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=separator)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise at_line(reader.line_num, Malformed("malformed_row", f"not a row: {error}")) from None
        if cells:
            yield Row(reader.line_num, cells)


def _lines(raw: IO[bytes], packed: bool, encoding: str, moved: Callable[[int], None]) -> Iterator[str]:
    """The decoded lines. Decoding goes line by line, so that bytes that don't fit are found on theirs."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    pending, number, seen = "", 0, 0
    with raw, gzip.GzipFile(fileobj=raw) if packed else raw as source:
        while True:
            number += 1
            try:
                line = source.readline()
                text = decoder.decode(line, final=not line)
            except UnicodeDecodeError as error:
                what = f"the bytes {error.object[error.start : error.end].hex(' ')} are not {encoding}"
                raise at_line(number, Malformed("wrong_encoding", what)) from None
            except (OSError, EOFError) as error:
                raise Malformed("unreadable_file", f"the file can't be read: {error}") from None
            moved(raw.tell() - seen)
            seen = raw.tell()
            pending += text.removeprefix("\ufeff") if number == 1 else text
            while "\n" in pending:
                complete, _, pending = pending.partition("\n")
                yield complete + "\n"
            if not line:
                break
    if pending:
        yield pending
