"""Who asks, and for whom he may act."""

from dataclasses import dataclass

from rookery.domain.errors import Forbidden, Unauthenticated
from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request. In open mode anyone may act as anyone, and so may the person at the machine."""

    user: UserRecord | None = None
    anyone: bool = False
    token_hash: bytes | None = None
    deleted: UserId | None = None
    """Of somebody who may do nothing: the user whom they deleted, themselves, with the token that they still send."""

    @property
    def scope(self) -> bytes:
        """Whose idempotency keys these are."""
        return self.user.id if self.user else b"anyone"

    @property
    def is_nobody(self) -> bool:
        """Whether nothing tells who this is."""
        return self.user is None and not self.anyone

    @property
    def may_administer(self) -> bool:
        """Whether this is an administrator, or everyone is."""
        return self.anyone or (self.user is not None and self.user.is_admin)

    def require_self(self, user: UserId) -> None:
        """Let the caller act as this user, or refuse.

        Raises:
            Unauthenticated: `token_missing`.
            Forbidden: `not_yours`.
        """
        if self.anyone:
            return
        self.require_token()
        if self.user is None or self.user.id != user:
            raise Forbidden("not_yours", "Your token is another user's: you can act only as yourself.")

    def require_self_or_admin(self, user: UserId) -> None:
        """As `require_self`, but an administrator may as well."""
        if not self.may_administer:
            self.require_self(user)

    def require_token(self) -> None:
        """Refuse whoever is nobody.

        Raises:
            Unauthenticated: `token_missing`.
        """
        if self.is_nobody:
            raise Unauthenticated("token_missing", "This needs a token: Authorization: Bearer rk_…")


ANYONE = Caller(anyone=True)
"""The caller of open mode, and of the command line."""
NOBODY = Caller()
"""A caller without a token."""
