"""What systemd hands over, and what it is told: the protocols of sd_listen_fds(3) and sd_notify(3)."""

import os
import socket
from contextlib import suppress

from rookery.domain.errors import Unavailable

_FIRST_SOCKET = 3  # SD_LISTEN_FDS_START
_speaker = 0
"""The process that speaks for its workers, if there are any."""


def keeps_socket() -> bool:
    """Whether systemd keeps a listening socket for this process, also while it is not there."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def kept_socket() -> socket.socket:
    """That socket; to be taken once.

    Raises:
        Unavailable: `address_unavailable`.
    """
    if os.environ["LISTEN_FDS"] != "1":
        raise Unavailable("address_unavailable", "systemd keeps several sockets, and a server listens on one.")
    try:
        kept = socket.socket(fileno=_FIRST_SOCKET)
    except OSError as error:
        raise _unusable() from error
    if kept.family not in (socket.AF_INET, socket.AF_INET6) or kept.type != socket.SOCK_STREAM:
        raise _unusable()
    return kept


def _unusable() -> Unavailable:
    return Unavailable("address_unavailable", "What systemd hands over is not a listening TCP socket.")


def tell(state: str) -> None:
    """Tell it of a change, such as READY=1; nothing happens where nobody listens, and in a worker."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or _speaker not in (0, os.getpid()):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as speaking:
        speaking.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def tell_alive() -> None:
    """Tell it that the event loop turns, if it wants to know. It ends whoever falls silent."""
    if pause() is not None:
        tell("WATCHDOG=1")


def speak_for_workers() -> None:
    """Tell it of this process alone, also in those that are forked from it: it would not hear them."""
    global _speaker  # noqa: PLW0603 - what a fork takes along
    _speaker = os.getpid()


def pause() -> float | None:
    """How long to wait between two signs of life, in seconds; None where nobody waits for them."""
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1e6 / 3 if micros.isdigit() and int(micros) else None
