"""The tables, as numbered migrations. One that was released is never changed: a new one is added behind it."""

import sqlite3

from rookery.domain.errors import Conflict

APPLICATION_ID = 0x526F6F6B  # "Rook", so that `file` and we ourselves know the file by its head

_FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('secret', randomblob(32));

CREATE TABLE user (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    password_hash TEXT,
    is_admin INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    purged INTEGER NOT NULL DEFAULT 0,
    fanout INTEGER NOT NULL DEFAULT 0,
    fanout_since INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX user_to_purge ON user (id) WHERE deleted AND NOT purged;
CREATE INDEX user_by_fanout ON user (id) WHERE fanout != 0;

CREATE TABLE token (hash BLOB PRIMARY KEY, user BLOB NOT NULL REFERENCES user (id)) STRICT, WITHOUT ROWID;
CREATE INDEX token_by_user ON token (user);

CREATE TABLE follow (
    follower BLOB NOT NULL REFERENCES user (id),
    followee BLOB NOT NULL REFERENCES user (id),
    at INTEGER NOT NULL,
    PRIMARY KEY (follower, followee)
) STRICT, WITHOUT ROWID;
CREATE INDEX follow_by_followee ON follow (followee, follower);

CREATE TABLE unfollow (
    follower BLOB NOT NULL,
    followee BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (follower, followee)
) STRICT, WITHOUT ROWID;
CREATE INDEX unfollow_by_time ON unfollow (at);

CREATE TABLE tweet (
    id BLOB PRIMARY KEY,
    author BLOB NOT NULL REFERENCES user (id),
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    retweet BLOB REFERENCES tweet (id),
    root BLOB,
    depth INTEGER NOT NULL,
    initial INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX tweet_by_author ON tweet (author, id) WHERE NOT deleted;
CREATE INDEX tweet_bare ON tweet (author, retweet)
    WHERE retweet IS NOT NULL AND title = '' AND body = '' AND initial = 0 AND NOT deleted;

-- Apart from tweet, as the ranking may stand without a store beside it, and counting must not rewrite texts.
CREATE TABLE ranking (
    tweet BLOB PRIMARY KEY,
    parent BLOB,
    initial INTEGER NOT NULL,
    count INTEGER NOT NULL,
    live INTEGER NOT NULL,
    hidden INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
-- Most tweets are never retweeted. They have an index of their own: new ones are put at its end, where it is cheap.
CREATE INDEX ranking_top ON ranking (count, tweet) WHERE live AND NOT hidden AND count > 0;
CREATE INDEX ranking_rest ON ranking (tweet) WHERE live AND NOT hidden AND count = 0;

CREATE TABLE pending (
    id BLOB PRIMARY KEY,
    work INTEGER NOT NULL,
    subject BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What a ranking elsewhere was told lately, in case it forgets.
CREATE TABLE counted (
    id BLOB PRIMARY KEY,
    work INTEGER NOT NULL,
    subject BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE epoch (server TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    digest BLOB NOT NULL,
    made BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (at);
"""

MIGRATIONS = (_FIRST,)


def migrate(connection: sqlite3.Connection, *, only_new: bool = False) -> None:
    """Bring a file up to this program's schema, all steps or none. Safe beside another process doing the same.

    With `only_new` tables are made where there are none, and those of an older Rookery are left alone.

    Raises:
        Conflict: `not_rookery` for somebody else's SQLite file, `schema_too_new` for one of a later Rookery,
            `schema_too_old` for one of an older if it is not to be changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection)
        if version < len(MIGRATIONS):
            if version and only_new:
                raise Conflict(
                    "schema_too_old",
                    f"The database has schema {version}, this Rookery needs {len(MIGRATIONS)}: "
                    "stop the server and bring it up with rookery migrate.",
                )
            for migration in MIGRATIONS[version:]:
                for statement in _statements(migration):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def check(connection: sqlite3.Connection) -> None:
    """Refuse a file that is not ours to change, before anything is changed in it.

    Raises:
        Conflict: as `migrate`.
    """
    connection.execute("BEGIN")  # one snapshot: another process may be making the file
    try:
        version_of(connection)
    finally:
        connection.execute("ROLLBACK")


def newest() -> int:
    """The schema of this program."""
    return len(MIGRATIONS)


def is_older(connection: sqlite3.Connection) -> bool:
    """Whether a file has tables of an older Rookery."""
    connection.execute("BEGIN")  # all that tells it is of one moment: another process may be making the tables
    try:
        return 0 < version_of(connection) < len(MIGRATIONS)
    finally:
        connection.execute("ROLLBACK")


def foreign() -> Conflict:
    """The answer to a file that is not Rookery's."""
    return Conflict("not_rookery", "The database file belongs to another program.")


def version_of(connection: sqlite3.Connection) -> int:
    """The number of migrations that a file has had, 0 for an empty one.

    Raises:
        Conflict: as `migrate`.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if owner != APPLICATION_ID and tables:
        raise foreign()
    if version > len(MIGRATIONS):
        raise Conflict(
            "schema_too_new",
            f"The database has schema {version}, this Rookery knows up to {len(MIGRATIONS)}: use a newer Rookery.",
        )
    return version


def _statements(script: str) -> list[str]:
    """The statements one by one, as `executescript` would commit the open transaction first."""
    found, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
