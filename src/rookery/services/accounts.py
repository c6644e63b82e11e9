"""Accounts: registering, signing in and out, showing and deleting users."""

import asyncio
import re
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import TypeVar
from uuid import UUID

from rookery.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated, half_made_user, unknown_user
from rookery.domain.idempotency import Once
from rookery.domain.ids import UserId, parse_id
from rookery.domain.promises import Work
from rookery.domain.text import clean_display_name
from rookery.domain.users import (
    NewUser,
    User,
    UserRecord,
    check_name,
    check_password,
    is_name,
    is_reserved,
    name_key,
    show_user,
)
from rookery.ports.clock import Clock
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Credentials, Store
from rookery.services.callers import Caller
from rookery.services.counts import Counts
from rookery.services.filling import AUTHOR, Filler
from rookery.services.hashing import Asker, HashingQueue
from rookery.services.promises import Promises

K = TypeVar("K")
V = TypeVar("V")

TOKEN_SECONDS = 1.0
"""How long a token is known without asking the store: a revoked one is refused within it, whoever revoked it."""
REFUSED_SECONDS = 1.0
"""How long a token that is not valid is refused without asking the store."""
_TOKEN = re.compile(r"rk_[A-Za-z0-9_-]{43}")
_REMEMBERED = 10_000
"""Tokens that are known, and tokens that are known not to be valid, in a process."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How this server treats accounts."""

    open_mode: bool
    registration_open: bool
    reserved: frozenset[str] = frozenset()
    """Names that only administrators may register, besides those that are always reserved."""


class Accounts:
    """Users and what they sign in with."""

    def __init__(
        self,
        store: Store,
        filler: Filler,
        clock: Clock,
        queue: HashingQueue,
        promises: Promises,
        *,
        rules: Rules,
        reached: Steps = unwatched,
    ) -> None:
        self._store = store
        self._filler = filler
        self._clock = clock
        self._queue = queue
        self._promises = promises
        self._rules = rules
        self._reached = reached
        self._counts = Counts(store, clock)
        self._tokens: OrderedDict[bytes, tuple[float, UserRecord]] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[UserRecord | None]] = {}
        """Look-ups of tokens that are under way."""
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        """Hashes of tokens that are not valid, and until when nobody asks the store for them."""

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
        network: str = "",
        admit: Callable[[], None] = lambda: None,
    ) -> NewUser:
        """Make a user and, but in open mode, their first token.

        `network` is where the client is. `admit` is called before anything is done, but not for a repetition of a
        registration that was done; it may raise.

        Raises:
            Forbidden: `registration_closed`, `name_reserved`.
            BrokenRule: `name_invalid`, `password_length`, `display_name_…`.
            Conflict: `name_taken`; `token_revoked`, for a repetition whose token was revoked since.
            Unavailable, TooMany: as `HashingQueue.hash`.
        """
        if not self._rules.registration_open and not caller.may_administer:
            raise Forbidden("registration_closed", "This server takes no new users by itself; ask who runs it.")
        user = UserRecord(
            id=self._clock.new_user_id(),
            name=check_name(name),
            display_name=clean_display_name(display_name or name),
            is_admin=is_admin,
        )
        if not caller.may_administer and is_reserved(name, self._rules.reserved):
            raise Forbidden("name_reserved", "This name is reserved: only an administrator may give it.")
        if password is not None:
            check_password(password)
        token_of = None if self._rules.open_mode else await self._new_token(once)
        made = await self._store.recall(once) if once else None
        if made is None:
            admit()
            asker = Asker(network, name_key(name), is_new=True)
            hashed = await self._queue.hash(asker, password) if password is not None else None
            credentials = Credentials(hashed, (lambda made: _token_hash(token_of(made))) if token_of else None)
            made = await self._store.add_user(user, credentials, once)
            if hashed:
                self._queue.know(asker)
        token = token_of(made) if token_of else None
        if token:
            await self._require_given(token, is_new=made == user.id)
        return NewUser(user_id=UUID(bytes=made), name=user.name, token=token)

    async def sign_in(self, name: str, password: str, once: Once | None = None, network: str = "") -> str:
        """A new token for a name and password. `network` is where the client is.

        Raises:
            Unauthenticated: `bad_credentials`, the same and as slow for a name that does not exist.
            Conflict: `token_revoked`, for a repetition whose token was revoked since.
            Unavailable, TooMany: as `HashingQueue.verify`.
        """
        user = await self._store.user_by_name(name)
        hashed = await self._store.password_hash(user.id) if user else None
        account = name_key(name) if is_name(name) else ""  # what is none may be of any length
        if not await self._queue.verify(Asker(network, account), hashed, password) or user is None:
            raise _bad_credentials()
        try:
            token = await self.give_token(user, once)
        except NotFound as error:  # deleted while the password was verified
            raise _bad_credentials() from error
        if await self._store.password_hash(user.id) != hashed:
            # Changed meanwhile, and the tokens that were there ended: perhaps before this one was.
            await self._store.revoke_token(_token_hash(token))
            raise _bad_credentials()
        return token

    async def give_token(self, user: UserRecord, once: Once | None = None) -> str:
        """One more token for a user.

        Raises:
            Conflict: `token_revoked`, for a repetition whose token was revoked since.
        """
        token_of = await self._new_token(once)
        new = self._clock.random(16)
        made = await self._store.add_token(user.id, lambda made: _token_hash(token_of(made)), once, new)
        token = token_of(made)
        await self._require_given(token, is_new=made == new)
        return token

    async def change_password(
        self, caller: Caller, password: str | None, new: str, once: Once | None = None, network: str = ""
    ) -> None:
        """Replace the caller's password and end all their tokens but the one that is used.

        `password` is the present one, None where there is none yet.

        Raises:
            Unauthenticated: `token_missing`; `bad_credentials`, when `password` is not the present one.
            BrokenRule: `password_length`.
            Unavailable, TooMany: as `HashingQueue.verify`.
        """
        caller.require_token()
        if caller.user is None:
            raise Unauthenticated("token_missing", "In open mode nobody signs in, and nobody has a password.")
        user = caller.user
        check_password(new)
        if once and await self._store.recall(once):
            return
        asker = Asker(network, name_key(user.name))
        present = await self._store.password_hash(user.id)
        if present is not None and password is None:
            raise _bad_credentials()
        if password is not None and not await self._queue.verify(asker, present, password):
            raise _bad_credentials()
        await self._store.set_password(user.id, await self._queue.hash(asker, new), caller.token_hash, once)
        self._forget_tokens(user.id)

    async def sign_out(self, caller: Caller, *, everywhere: bool = False) -> None:
        """Revoke the token that was used, or all of its user's."""
        caller.require_token()
        if caller.user is None or caller.token_hash is None:
            return
        if everywhere:
            await self.revoke_tokens(caller.user)
        else:
            await self._store.revoke_token(caller.token_hash)
            self._tokens.pop(caller.token_hash, None)
            self._looking.pop(caller.token_hash, None)

    async def revoke_tokens(self, user: UserRecord) -> int:
        """End all of a user's tokens; how many there were."""
        many = await self._store.revoke_tokens(user.id)
        self._forget_tokens(user.id)
        return many

    async def authenticate(self, token: str, admit: Callable[[], None] = lambda: None) -> Caller:
        """Who sends a token. `admit` is called before the store is asked for one that was not known here before.

        Raises:
            Unauthenticated: `token_invalid`.
            Exception: what `admit` raises.
        """
        if not _TOKEN.fullmatch(token):
            raise _token_invalid()
        hashed = _token_hash(token)
        known = self._tokens.get(hashed)
        if known is None or known[0] <= self._clock.monotonic():
            if self._refused.get(hashed, 0.0) > self._clock.monotonic():
                raise _token_invalid()
            if known is None:
                admit()
            user = await self._owner_of(hashed)
            if user is None:
                raise _token_invalid()
            return Caller(user=user, token_hash=hashed)
        return Caller(user=known[1], token_hash=hashed)

    async def _owner_of(self, hashed: bytes) -> UserRecord | None:
        """Ask the store whose token it is, once for all who wait for it."""
        looking = self._looking.get(hashed)
        if looking is None:
            looking = self._looking[hashed] = asyncio.create_task(self._look_up(hashed))
            looking.add_done_callback(_retrieve)
        return await asyncio.shield(looking)

    async def _look_up(self, hashed: bytes) -> UserRecord | None:
        try:
            user = await self._store.token_owner(hashed)
        finally:
            is_current = self._looking.get(hashed) is asyncio.current_task()
            if is_current:
                del self._looking[hashed]
        if user is None:
            self._tokens.pop(hashed, None)
            _remember(self._refused, hashed, self._clock.monotonic() + REFUSED_SECONDS)
        elif is_current:  # else it was revoked meanwhile
            _remember(self._tokens, hashed, (self._clock.monotonic() + TOKEN_SECONDS, user))
        return user

    async def deleted_by(self, token: str) -> UserId | None:
        """The user who deleted themselves with this token within the last day, if any did."""
        if not _TOKEN.fullmatch(token):
            return None
        made = await self._store.recall(self._farewell(_token_hash(token)))
        user = UserId(made) if made else None
        # The note is made before the deletion, which may have failed.
        records = await self._store.users([user]) if user else {}
        if user is None or user not in records or not records[user].deleted:
            return None
        await self._filler.drop([AUTHOR + user])  # again: who deleted them may have ended before that
        return user

    # --- who is who --------------------------------------------------------------------------------------------------

    async def find(self, reference: str) -> UserRecord:
        """The user of an id or `@name`, read from the store.

        Raises:
            Malformed: `malformed_id`.
            NotFound: `unknown_user`.
        """
        return _living(await self._record_of(reference))

    async def find_to_delete(self, reference: str) -> UserRecord:
        """As `find`. Of one who is deleted already what is cached is dropped first.

        The delete may be asked for again because the process that did it ended before that.
        """
        record = await self._record_of(reference)
        if record is not None and record.deleted:
            await self._filler.drop([AUTHOR + record.id])
        return _living(record)

    async def _record_of(self, reference: str) -> UserRecord | None:
        if reference.startswith("@"):
            return await self._store.user_by_name(reference[1:])
        user = UserId(parse_id(reference))
        return (await self._store.users([user])).get(user)

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
        return _living(await self._store.user_by_name(name))

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
        return _living(record)

    async def show(self, user: UserRecord) -> User:
        """What everyone sees of a user."""
        return show_user(user, await self._counts.of(user.id))

    async def show_all(self, ids: Sequence[UserId]) -> Sequence[User | None]:
        """The users in the order given; None for one who is deleted."""
        records = await self._store.users(ids)
        live = {user for user, record in records.items() if not record.deleted}
        return [await self.show(records[user]) if user in live else None for user in ids]

    async def list(self, after: str, limit: int) -> Sequence[UserRecord]:
        """Users by handle, behind the one given."""
        return await self._store.list_users(after, limit)

    def forget_counts(self, *users: UserId) -> None:
        """Count again what has changed, where that is cheap."""
        self._counts.forget(*users)

    def forget_all_counts(self) -> None:
        """Count everyone's anew, after a deleted user's follows went."""
        self._counts.forget_all()

    # --- going -------------------------------------------------------------------------------------------------------

    async def delete(self, caller: Caller, user: UserRecord) -> None:
        """Hide a user and everything of his at once; his rows go later, by `Chores`.

        Raises:
            Forbidden: `not_yours`, for whoever is neither he nor an administrator.
        """
        caller.require_self_or_admin(user.id)
        if caller.token_hash is not None and caller.user is not None and caller.user.id == user.id:
            # The token ends with the user. The note lets the client ask once more, after a lost answer.
            await self._store.note_once(self._farewell(caller.token_hash), user.id)
        promise = self._promises.make(Work.USER, user.id)
        await self._store.delete_user(user.id, promise)
        self._reached("delete_user.written")
        self._forget_tokens(user.id)
        await self._filler.drop([AUTHOR + user.id])
        self._promises.keep(promise)

    async def confirm_deleted(self, caller: Caller, reference: str) -> None:
        """Return if the caller deleted this user, themselves, with the token that they still send.

        Raises:
            Unauthenticated: `token_invalid`: the token is good for nothing else.
        """
        if reference.startswith("@"):
            record = await self._store.user_by_name(reference[1:])
            user = record.id if record else None
        else:
            user = UserId(parse_id(reference))
        if user is None or user != caller.deleted:
            raise _token_invalid()

    async def _new_token(self, once: Once | None) -> Callable[[bytes], str]:
        """A function that returns a new token of 256 bits for the id that its write stands for.

        Under an idempotency key the token follows from the key and from this id, and each record of a key has another
        id: a replay is answered alike, and a key that is used again after its day gives another token.
        """
        if once is None:
            secret = self._clock.random(32)
            return lambda _: _token(secret)
        key, seed = await self._store.secret(), once.seed + once.digest
        return lambda made: _token(hmac_digest(key, seed + made, "sha256"))

    async def _require_given(self, token: str, *, is_new: bool) -> None:
        """Let a new token serve at once; of a repeated write refuse the one that was revoked since.

        Raises:
            Conflict: `token_revoked`.
        """
        hashed = _token_hash(token)
        self._refused.pop(hashed, None)
        if not is_new and await self._store.token_owner(hashed) is None:
            raise Conflict("token_revoked", "The token made under this Idempotency-Key was revoked; use a new key.")

    def _forget_tokens(self, user: UserId) -> None:
        """Ask the store again for each token of a user."""
        for hashed in [hashed for hashed, (_, owner) in self._tokens.items() if owner.id == user]:
            del self._tokens[hashed]
        self._looking.clear()  # requests that wait for them are answered; nothing of it is kept

    def _farewell(self, token_hash: bytes) -> Once:
        """The key under which it is noted that a token's user deleted themselves with it."""
        key = sha256(b"deletion\0" + token_hash).digest()
        return Once(key=key, digest=sha256(b"deletion").digest(), at=self._clock.now(), seed=b"")


def _token(secret: bytes) -> str:
    return "rk_" + urlsafe_b64encode(secret).rstrip(b"=").decode()


def _token_hash(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _token_invalid() -> Unauthenticated:
    return Unauthenticated("token_invalid", "This token is not valid, or was revoked.")


def _bad_credentials() -> Unauthenticated:
    return Unauthenticated("bad_credentials", "Name and password don't match.")


def _living(record: UserRecord | None) -> UserRecord:
    """A user who is there.

    Raises:
        NotFound: `unknown_user`.
    """
    if record is None or record.deleted:
        raise unknown_user()
    return record


def _retrieve(task: "asyncio.Task[UserRecord | None]") -> None:
    """See the failure of a look-up that nobody may wait for any more."""
    if not task.cancelled():
        task.exception()


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep a value, and no more of them than `_REMEMBERED`."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
