"""`rookery load`: graphs and tweets from files. The server must be stopped; a load may be stopped and run again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cyclopts import App, Parameter

from rookery.cli.flags import Flags, read
from rookery.cli.output import complain, progress, say
from rookery.cli.tables import Row, Table, at_line, cell, open_table
from rookery.domain.errors import Failure, Malformed
from rookery.domain.users import check_name
from rookery.services.loading import CheckedTweet, FoundTweet, Loaded, Loading, check
from rookery.wiring import Sharing, open_rookery

_BATCH = 2_000
_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " "}
_SHOWN = 10

T = TypeVar("T")


def add_to(app: App) -> None:
    """Add these commands."""
    load = App(name="load", help="Load a graph or tweets from a file, plain or .gz. Stop the server first.")
    load.command(graph)
    load.command(tweets)
    app.command(load)


def graph(
    file: Path,
    *,
    follower: str = "1",
    followee: str = "2",
    header: Annotated[bool, Parameter(negative="")] = False,
    separator: str = "tab",
    encoding: str = "utf-8",
    flags: Flags = None,
) -> None:
    """Load who follows whom: a handle and a handle on each line. Who does not exist is made.

    Parameters
    ----------
    file
        The file to load.
    follower
        The column of who follows: a number from 1, or a name with --header.
    followee
        The column of who is followed.
    header
        The first line names the columns.
    separator
        What is between columns: tab, comma, semicolon, space, or any one character.
    encoding
        How the file's letters are written.
    """

    def pairs(table: Table) -> Iterator[tuple[str, str]]:
        columns = table.column(follower), table.column(followee)
        for row in table.rows:
            names = cell(row, columns[0]), cell(row, columns[1])
            for name in names:
                _at(row, check_name, name)
            yield names

    def load(loading: Loading, table: Table) -> Iterator[Awaitable[Loaded]]:
        return map(loading.follows, _batches(pairs(table)))

    done = _load(file, load, encoding=encoding, separator=_separator(separator), header=header, flags=flags)
    say(f"{done.read:,} rows: {done.added:,} follows added, {done.users:,} users made, {done.skipped:,} skipped.")


def tweets(
    file: Path,
    *,
    author_column: str = "user_name",
    author: str | None = None,
    body_column: str = "body",
    title_column: str | None = None,
    date_column: str = "created_at",
    count_column: str | None = None,
    key_column: str | None = None,
    date_format: str | None = None,
    timezone: str = "UTC",
    separator: str = "comma",
    encoding: str = "utf-8",
    skip_bad: Annotated[bool, Parameter(negative="")] = False,
    flags: Flags = None,
) -> None:
    """Load tweets from a table whose first line names its columns. Dates are kept, and initial counts.

    Parameters
    ----------
    file
        The file to load.
    author_column
        The column of the author's handle.
    author
        Whose tweets all are, where no column tells.
    body_column
        The column of the text.
    title_column
        The column of the title, if there is one.
    date_column
        The column of the date.
    count_column
        The column of how often a tweet was retweeted, if there is one.
    key_column
        The column that names a tweet in its source, if there is one: by it a tweet is loaded once.
    date_format
        How dates are written, as strptime reads them; ISO 8601 when not given.
    timezone
        Where dates that name no zone were written, such as Europe/Berlin.
    separator
        What is between columns: tab, comma, semicolon, space, or any one character.
    encoding
        How the file's letters are written, such as utf-8, latin-1 or cp1252.
    skip_bad
        Leave out rows that can't be tweets, and say which; else the first one ends the load.
    """
    zone = _zone(timezone)
    bad: list[str] = []

    def found(table: Table) -> Iterator[CheckedTweet]:
        columns = _TweetColumns(
            author=None if author else table.column(author_column),
            body=table.column(body_column),
            title=table.column(title_column) if title_column else None,
            date=table.column(date_column),
            count=table.column(count_column) if count_column else None,
            key=table.column(key_column) if key_column else None,
        )
        seen: Counter[bytes] = Counter()
        for row in table.rows:
            try:
                tweet = columns.read(row, author, lambda text: _millis(text, date_format, zone), seen)
                checked = _at(row, check, tweet)
            except Failure as failure:
                if not skip_bad:
                    raise
                bad.append(failure.message)
            else:
                yield checked

    def load(loading: Loading, table: Table) -> Iterator[Awaitable[Loaded]]:
        return map(loading.tweets, _batches(found(table)))

    done = _load(file, load, encoding=encoding, separator=_separator(separator), header=True, flags=flags)
    for reason in bad[:_SHOWN]:
        complain(f"skipped {reason}")
    say(f"{done.read + len(bad):,} rows: {done.added:,} tweets added, {done.users:,} users made, {len(bad):,} skipped.")


class _TweetColumns:
    """Which columns a tweet is read from; None for one that is not there."""

    def __init__(
        self, *, author: int | None, body: int, title: int | None, date: int, count: int | None, key: int | None
    ) -> None:
        self._author, self._body, self._title = author, body, title
        self._date, self._count, self._key = date, count, key

    def read(self, row: Row, author: str | None, millis: Callable[[str], int], seen: "Counter[bytes]") -> FoundTweet:
        """The tweet of a row. Without a key it goes by all its cells, and by which of several equal rows it is."""
        name = author or cell(row, self._author or 0)
        if self._key is not None:
            key = cell(row, self._key)
        else:
            cells = "\0".join(row.cells)
            digest = blake2b(cells.encode("utf-8", "surrogatepass"), digest_size=16).digest()  # a file may be long
            seen[digest] += 1
            key = f"{cells}\0{seen[digest]}"
        return FoundTweet(
            author=name,
            title=cell(row, self._title) if self._title is not None else "",
            body=cell(row, self._body),
            millis=_at(row, millis, cell(row, self._date)),
            key=key,
            initial=_at(row, _count, cell(row, self._count)) if self._count is not None else 0,
        )


def _load(
    file: Path,
    steps: Callable[[Loading, Table], Iterator[Awaitable[Loaded]]],
    *,
    encoding: str,
    separator: str,
    header: bool,
    flags: Flags,
) -> Loaded:
    settings = read(flags).settings
    size = None
    with suppress(OSError):  # opening it will say what is wrong
        size = file.stat().st_size or None  # a pipe has none

    async def run() -> Loaded:
        done = Loaded()
        with progress(file.name, size) as moved:
            table = open_table(file, encoding=encoding, separator=separator, header=header, moved=moved)
            async with open_rookery(settings, Sharing.NO_SERVER) as rookery:
                backends = rookery.backends
                loading = Loading(backends.store, backends.clock, rookery.services.top, rookery.promises)
                await backends.cache.clear()  # also now: a load that is stopped has loaded something
                try:
                    for step in steps(loading, table):
                        done += await step
                finally:
                    await backends.cache.clear()
        return done

    return asyncio.run(run())


def _batches(items: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


def _at(row: Row, step: Callable[..., T], *arguments: object) -> T:
    """Do a step on a row; what fails tells the row's line."""
    try:
        return step(*arguments)
    except Failure as failure:
        raise at_line(row.line, failure) from None


def _separator(text: str) -> str:
    found = _SEPARATORS.get(text, text)
    if len(found) != 1:
        raise Malformed("malformed_separator", "A separator is tab, comma, semicolon, space, or one character.")
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Malformed("unknown_timezone", f"There is no time zone {name!r}; one is Europe/Berlin.") from None


def _millis(text: str, form: str | None, zone: ZoneInfo) -> int:
    """A date as milliseconds since 1970."""
    try:
        date = datetime.strptime(text, form) if form else datetime.fromisoformat(text)  # noqa: DTZ007 - zoned below
    except ValueError:
        wanted = f"the format {form}" if form else "ISO 8601; say --date-format"
        raise Malformed("malformed_date", f"the date {text!r} is not of {wanted}") from None
    if date.tzinfo is None:
        date = date.replace(tzinfo=zone)
    return round(date.timestamp() * 1000)


def _count(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise Malformed("malformed_count", f"the count {text!r} is not a whole number")
    return int(digits)
