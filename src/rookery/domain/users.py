"""People: their handles, what is stored of them and what is shown of them."""

import re
from datetime import datetime
from enum import IntEnum
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from rookery.domain.errors import BrokenRule
from rookery.domain.ids import UserId, time_of

_NAME = re.compile(r"[A-Za-z0-9_]{1,30}", re.ASCII)
NAME_PATTERN = "^[A-Za-z0-9_]{1,30}$"
RESERVED_NAMES = frozenset(
    {
        *("admin", "administrator", "root", "sysadmin", "system", "rookery", "official", "staff", "moderator"),
        *("support", "help", "helpdesk", "security", "abuse", "noreply", "postmaster", "hostmaster", "webmaster"),
        *("api", "www"),
    }
)
"""Handles that seem to speak for the server or its operator; the mailboxes are those of RFC 2142."""
MIN_PASSWORD = 8
MAX_PASSWORD = 200


class FanoutState(IntEnum):
    """How an author's tweets reach his followers. In the two states between, he is both pushed and pulled."""

    PUSHED = 0
    RISING = 1
    PULLED = 2
    FALLING = 3


class UserRecord(Struct, frozen=True):
    """A user as the store keeps him."""

    id: UserId
    name: str
    display_name: str
    is_admin: bool = False
    deleted: bool = False
    fanout: FanoutState = FanoutState.PUSHED


class UserCounts(Struct, frozen=True):
    """Counted from rows, never kept in a counter."""

    followers: int
    followees: int
    tweets: int


class User(Struct, frozen=True):
    """A user as everyone sees him."""

    user_id: UUID
    name: Annotated[str, Meta(description="The unique handle, compared without case.", examples=["ada"])]
    display_name: Annotated[str, Meta(examples=["Ada Lovelace"])]
    created_at: datetime
    count_followers: int
    count_followees: int
    count_tweets: int


class NewUser(Struct, frozen=True):
    """The answer to a registration. The token is shown this once; in open mode there is none."""

    user_id: UUID
    name: Annotated[str, Meta(examples=["ada"])]
    token: Annotated[str | None, Meta(examples=["rk_iPH1…"])]


def is_name(name: str) -> bool:
    """Whether this may be a handle."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """A handle as it was typed, if it may be one.

    Raises:
        BrokenRule: `name_invalid`.
    """
    if not is_name(name):
        raise BrokenRule("name_invalid", "A name is 1 to 30 of the letters A-Z, a-z, 0-9 and _.")
    return name


def is_reserved(name: str, more: frozenset[str]) -> bool:
    """Whether only an administrator may give a handle: it is reserved, or one of `more`, but for case and outer _."""
    bare = name_key(name).strip("_")
    return bare in RESERVED_NAMES or bare in {name_key(one).strip("_") for one in more}


def name_key(name: str) -> str:
    """What makes a handle unique: its lower case. Beyond ASCII letters stay, as some would become ASCII ones."""
    return name.lower() if name.isascii() else name


def check_password(password: str) -> str:
    """A password that is long enough to be one and short enough to hash.

    Raises:
        BrokenRule: `password_length`.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise BrokenRule("password_length", f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
    return password


def show_user(record: UserRecord, counts: UserCounts) -> User:
    """What everyone sees of a stored user."""
    return User(
        user_id=UUID(bytes=record.id),
        name=record.name,
        display_name=record.display_name,
        created_at=time_of(record.id),
        count_followers=counts.followers,
        count_followees=counts.followees,
        count_tweets=counts.tweets,
    )
