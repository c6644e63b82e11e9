"""A store with some of everything in it, and all that it holds."""

from rookery.domain.copies import Copy, Part
from rookery.domain.users import FanoutState
from rookery.ports.store import Store
from tests.contract.given import MOST, NOON, Given, once, purge


async def dumped(store: Store, part: Part, limit: int = 3) -> list[Copy]:
    found: list[Copy] = []
    position: bytes | None = b""
    while position is not None:
        copies, position = await store.dump(part, position, limit)
        assert len(copies) <= limit
        found += copies
    return sorted(found, key=repr)


async def live_a_little(store: Store) -> None:
    given = Given(store)
    ada, bob = await given.user("Ada", token=b"t" * 32, password="hash"), await given.user("bob")
    eve, gone = await given.user("eve"), await given.user("gone", token=b"g" * 32, password="other")
    star = await given.user("star")
    await store.add_token(ada.id, b"o" * 32)
    await store.set_fanout(star.id, FanoutState.PUSHED, FanoutState.RISING, NOON)
    await store.set_fanout(star.id, FanoutState.RISING, FanoutState.PULLED, NOON + 1)
    tweets = await given.chain(ada, 6)
    await given.post(bob, tweets[2])
    await given.post(gone, tweets[3])
    await store.delete_tweet(tweets[1].id)
    await given.follow(ada, bob, eve, gone)
    await given.follow(bob, ada, eve)
    await given.follow(gone, ada)
    await store.unfollow(bob.id, eve.id, NOON + 5)
    await store.delete_user(gone.id)
    purged = await given.user("purged")
    await given.post(purged)
    await store.delete_user(purged.id)
    await purge(store, purged)
    await store.add_tweet(given.draft(eve), MOST, once("tweet"))
    await store.follow(eve.id, ada.id, NOON, MOST, once("follow"))
