"""Accounts: registering, signing in and out, showing and deleting users."""

import asyncio
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest as hmac_digest
from uuid import UUID

from rookery.domain.errors import Conflict, Forbidden, Unauthenticated, half_made_user, unknown_user
from rookery.domain.idempotency import Once
from rookery.domain.ids import UserId, parse_id
from rookery.domain.promises import Work
from rookery.domain.text import clean_display_name
from rookery.domain.users import (
    NewUser,
    User,
    UserCounts,
    UserRecord,
    check_name,
    check_password,
    show_user,
)
from rookery.ports.clock import Clock
from rookery.ports.hasher import Hasher
from rookery.ports.store import Credentials, Store
from rookery.services.callers import Caller
from rookery.services.filling import AUTHOR, Filler
from rookery.services.promises import Promises

TOKEN_SECONDS = 1.0
"""How long a token is known without asking the store: a revoked one is refused within it, whoever revoked it."""
COUNTS_SECONDS = 60.0
EXACT_BELOW = 10_000
"""Counts below this are dropped with every change; greater ones take long to count and are up to a minute old."""
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Rules:
    """How this server treats accounts."""

    open_mode: bool
    registration_open: bool


class Accounts:
    """Users and what they sign in with."""

    def __init__(
        self, store: Store, filler: Filler, clock: Clock, hasher: Hasher, promises: Promises, *, rules: Rules
    ) -> None:
        self._store = store
        self._filler = filler
        self._clock = clock
        self._hasher = hasher
        self._promises = promises
        self._rules = rules
        self._counts: OrderedDict[UserId, tuple[float, UserCounts]] = OrderedDict()
        self._tokens: OrderedDict[bytes, tuple[float, UserRecord]] = OrderedDict()

    # --- coming in ---------------------------------------------------------------------------------------------------

    async def register(
        self,
        caller: Caller,
        name: str,
        password: str | None,
        display_name: str | None = None,
        *,
        is_admin: bool = False,
        once: Once | None = None,
    ) -> NewUser:
        """Make a user and, but in open mode, his first token.

        Raises:
            Forbidden: `registration_closed`.
            BrokenRule: `name_invalid`, `password_length`, `display_name_…`.
            Conflict: `name_taken`.
        """
        if not self._rules.registration_open and not caller.may_administer:
            raise Forbidden("registration_closed", "This server takes no new users by itself; ask who runs it.")
        user = UserRecord(
            id=self._clock.new_user_id(),
            name=check_name(name),
            display_name=clean_display_name(display_name or name),
            is_admin=is_admin,
        )
        if password is not None:
            check_password(password)
        token = None if self._rules.open_mode else await self._new_token(once)
        made = await self._store.recall(once) if once else None
        if made is None:
            hashed = await self._hasher.hash(password) if password is not None else None
            made = await self._store.add_user(user, Credentials(hashed, _token_hash(token) if token else None), once)
        return NewUser(user_id=UUID(bytes=made), name=user.name, token=token)

    async def sign_in(self, name: str, password: str, once: Once | None = None) -> str:
        """A new token for a name and password.

        Raises:
            Unauthenticated: `bad_credentials`, the same and as slow for a name that does not exist.
        """
        user = await self._store.user_by_name(name)
        hashed = await self._store.password_hash(user.id) if user else None
        if not await self._hasher.verify(hashed, password) or user is None:
            raise Unauthenticated("bad_credentials", "Name and password don't match.")
        return await self.give_token(user, once)

    async def give_token(self, user: UserRecord, once: Once | None = None) -> str:
        """One more token for a user."""
        token = await self._new_token(once)
        await self._store.add_token(user.id, _token_hash(token), once)
        return token

    async def sign_out(self, caller: Caller) -> None:
        """Revoke the token that was used."""
        caller.require_token()
        if caller.token_hash is not None:
            await self._store.revoke_token(caller.token_hash)
            self._tokens.pop(caller.token_hash, None)

    async def revoke_tokens(self, user: UserRecord) -> int:
        """End all of a user's tokens; how many there were."""
        return await self._store.revoke_tokens(user.id)

    async def authenticate(self, token: str) -> Caller:
        """Who sends a token.

        Raises:
            Unauthenticated: `token_invalid`.
        """
        hashed = _token_hash(token)
        known = self._tokens.get(hashed)
        if known is None or known[0] <= self._clock.monotonic():
            user = await self._store.token_owner(hashed)
            if user is None:
                raise Unauthenticated("token_invalid", "This token is not valid, or was revoked.")
            known = (self._clock.monotonic() + TOKEN_SECONDS, user)
            self._tokens[hashed] = known
            if len(self._tokens) > _REMEMBERED:
                self._tokens.popitem(last=False)
        return Caller(user=known[1], token_hash=hashed)

    # --- who is who --------------------------------------------------------------------------------------------------

    async def find(self, reference: str) -> UserRecord:
        """The user of an id or `@name`, read from the store.

        Raises:
            Malformed: `malformed_id`.
            NotFound: `unknown_user`.
        """
        if reference.startswith("@"):
            return await self.find_name(reference[1:])
        user = UserId(parse_id(reference))
        record = (await self._store.users([user])).get(user)
        if record is None or record.deleted:
            raise unknown_user()
        return record

    async def find_id(self, reference: str) -> UserId:
        """The id in a reference; an id is believed here, and a name looked up."""
        if reference.startswith("@"):
            return (await self.find_name(reference[1:])).id
        return UserId(parse_id(reference))

    async def find_name(self, name: str) -> UserRecord:
        """The user of a handle.

        Raises:
            NotFound: `unknown_user`.
        """
        record = await self._store.user_by_name(name)
        if record is None or record.deleted:
            raise unknown_user()
        return record

    async def find_or_make(self, caller: Caller, name: str) -> UserRecord:
        """The user of a handle, made if there is none, as open mode does for whoever posts.

        Raises:
            NotFound: `unknown_user`.
            Unavailable: `busy`, while he is being made.
        """
        record = await self._store.user_by_name(check_name(name))
        if record is None and caller.anyone and self._rules.registration_open:
            with suppress(Conflict):  # another request made him in this moment
                await self.register(caller, name, None)
            record = await self._store.user_by_name(name)
            if record is None:
                raise half_made_user()
        if record is None or record.deleted:
            raise unknown_user()
        return record

    async def show(self, user: UserRecord) -> User:
        """What everyone sees of a user."""
        return show_user(user, await self._counted(user.id))

    async def show_all(self, ids: Sequence[UserId]) -> list[User]:
        """Those of the users who are not deleted, in the order given."""
        records = await self._store.users(ids)
        return [await self.show(records[user]) for user in ids if user in records and not records[user].deleted]

    async def list(self, after: str, limit: int) -> Sequence[UserRecord]:
        """Users by handle, behind the one given."""
        return await self._store.list_users(after, limit)

    def forget_counts(self, *users: UserId) -> None:
        """Count again what has changed, where that is cheap."""
        for user in users:
            known = self._counts.get(user)
            if known and max(known[1].followers, known[1].followees, known[1].tweets) < EXACT_BELOW:
                del self._counts[user]

    def forget_all_counts(self) -> None:
        """Count everyone's anew, after a deleted user's follows went."""
        self._counts.clear()

    # --- going -------------------------------------------------------------------------------------------------------

    async def delete(self, caller: Caller, user: UserRecord) -> None:
        """Hide a user and everything of his at once; his rows go later, by `Chores`.

        Raises:
            Forbidden: `not_yours`, for whoever is neither he nor an administrator.
        """
        caller.require_self_or_admin(user.id)
        promise = self._promises.make(Work.USER, user.id)
        await self._store.delete_user(user.id, promise)
        self._tokens.clear()
        await self._filler.drop([AUTHOR + user.id])
        self._promises.keep(promise)

    async def _counted(self, user: UserId) -> UserCounts:
        known = self._counts.get(user)
        if known and known[0] > self._clock.monotonic():
            return known[1]
        counts = await self._store.user_counts(user)
        self._counts[user] = (self._clock.monotonic() + COUNTS_SECONDS, counts)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        await asyncio.sleep(0)  # counting takes up to some milliseconds, and a page shows a hundred users
        return counts

    async def _new_token(self, once: Once | None) -> str:
        """256 bits. Under an idempotency key they follow from the key, so that a replay can be answered alike."""
        if once is None:
            secret = self._clock.random(32)
        else:
            secret = hmac_digest(await self._store.secret(), once.seed + once.digest, "sha256")
        return "rk_" + urlsafe_b64encode(secret).rstrip(b"=").decode()


def _token_hash(token: str) -> bytes:
    return sha256(token.encode()).digest()
