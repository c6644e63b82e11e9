"""A store into which a restore or a copy has not ended: it may hold a part only, so no server uses it."""

from collections.abc import Sequence

import msgspec

from rookery.domain.copies import Copy, Part, Unfinished
from rookery.domain.errors import Conflict
from rookery.ports.store import Store


async def require_finished(store: Store) -> None:
    """Return if the store is one to work with.

    Raises:
        Conflict: `store_unfinished`.
    """
    if (found := await store.unfinished()) is not None:
        raise _unfinished(found)


async def begun_before(store: Store, mine: Unfinished) -> Unfinished | None:
    """How far the same restore or copy has come, which may have been begun by another process; None when it is new.

    Raises:
        Conflict: `store_unfinished`, when it is another one that has not ended.
    """
    found = await store.unfinished()
    if found is not None and found.which != mine.which:
        raise _unfinished(found)
    return found


async def note_filled(store: Store, mine: Unfinished) -> None:
    """Note that all rows are there and were compared, so that only counts and caches are to be made."""
    await store.note_unfinished(msgspec.structs.replace(mine, is_filled=True))


async def holds_users(store: Store) -> bool:
    """Whether the store holds any user, deleted ones included."""
    position: bytes | None = b""
    while position is not None:
        copies: Sequence[Copy]
        copies, position = await store.dump(Part.USERS, position, 1)
        if copies:
            return True
    return False


def _unfinished(found: Unfinished) -> Conflict:
    return Conflict("store_unfinished", f"The store is not complete: {found.advice}")
