"""Idempotency keys: a write that was asked for twice happens once and is answered alike."""

from dataclasses import dataclass
from hashlib import sha256

from rookery.domain.errors import BrokenRule, Malformed

MAX_KEY = 255
LONG_KEY = 16
"""Letters of a key that nobody guesses, if it is random. Who sends a shorter one without a token, and the request that
went with it, might be anyone: it is good from the same address only."""
KEPT_MILLIS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Once:
    """The promise that a write happens once: `key` says whose and which, `digest` what was asked (32 bytes each)."""

    key: bytes
    digest: bytes
    at: int
    """When it was asked, in milliseconds since 1970."""
    seed: bytes
    """What a token made by this write follows from (32 bytes). Never stored: only who has the key can make it again."""


def once(actor: bytes, key: str, request: bytes, at: int) -> Once:
    """What an `Idempotency-Key` header means for this caller and this request.

    The key is kept as a digest only: a replayed registration derives its token from the key itself, so that what is
    stored must not tell it.

    Raises:
        Malformed: `malformed_idempotency_key`.
    """
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise Malformed("malformed_idempotency_key", f"An Idempotency-Key is 1 to {MAX_KEY} printable ASCII letters.")
    whose = actor + b"\0" + key.encode()
    return Once(
        key=sha256(b"key\0" + whose).digest(),
        digest=sha256(request).digest(),
        at=at,
        seed=sha256(b"seed\0" + whose).digest(),
    )


def reused() -> BrokenRule:
    """The answer to a key that was used for another request."""
    return BrokenRule("idempotency_key_reused", "This Idempotency-Key was used for another request.")
