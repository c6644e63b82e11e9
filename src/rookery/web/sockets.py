"""What the system knows of a transport's socket and asyncio does not say."""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress

MAX_UNSENT_BYTES = 64 * 1024
"""Bytes that the system takes of an answer before the client's window has room for them; by default, megabytes."""
_CLOSE_WAIT = bytes([8])
"""The state of such a connection, as `struct tcp_info` begins (TCP_CLOSE_WAIT in tcp_states.h)."""
_INT = struct.Struct("i")


def keep_little_unsent(transport: asyncio.Transport) -> None:
    """Have the system take little that it can't send yet. What is on its way has no bound but the client's window."""
    with suppress(OSError, AttributeError):  # no socket of TCP, or no Linux
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)


def has_failed(transport: asyncio.Transport) -> bool:
    """Whether the other side refused what it was sent. The system says so once."""
    try:
        return bool(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except OSError:  # it is closed
        return False


def is_half_closed(transport: asyncio.Transport) -> bool:
    """Whether the other side has said that it sends no more, read or not."""
    try:
        state = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, AttributeError):  # it is closed, or no socket of TCP
        return False
    return bool(state == _CLOSE_WAIT)


def unacknowledged(transport: asyncio.Transport) -> int:
    """How many bytes the system has of what was sent that the other side has not taken."""
    try:
        fd = transport.get_extra_info("socket").fileno()
        found: int = _INT.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INT.size)))[0]
    except (OSError, ValueError):  # it is closed
        return 0
    return found
