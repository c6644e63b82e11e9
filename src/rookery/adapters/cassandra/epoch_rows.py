"""The epochs of cache servers, in Cassandra."""

from collections.abc import Mapping

from rookery.adapters.cassandra.session import Session

_LIST = 0


async def known(session: Session) -> Mapping[str, int]:
    """See `Store.epochs`."""
    return dict(await session.read("SELECT server, number FROM epoch WHERE list = ?", _LIST))


async def raise_(session: Session, server: str, at: int) -> int:
    """See `Store.raise_epoch`."""
    query = "SELECT number FROM epoch WHERE list = ? AND server = ?"
    change = "UPDATE epoch SET number = ? WHERE list = ? AND server = ? IF number = ?"
    turn = 0
    while True:
        rows = await session.read(query, _LIST, server, serial=turn > 0)
        before = rows[0][0] if rows else None
        number = max(at, (before or 0) + 1)
        if await session.decide((change, (number, _LIST, server, before))):
            return number
        await session.back_off(turn)
        turn += 1
