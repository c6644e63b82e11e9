"""Head and body of an answer go out together: a server that is killed leaves all of it or nothing."""

import asyncio

import pytest

from rookery.web.outward import Outward
from tests.web.listening import Server


class Noting(asyncio.Transport):
    """A transport that notes each time something is given to the system."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
async def noting() -> Noting:
    return Noting()


@pytest.fixture
async def outward(noting: Noting) -> Outward:
    return Outward(noting, asyncio.get_running_loop())


async def test_head_and_body_are_one_write(outward: Outward, noting: Noting) -> None:
    for _ in range(2):
        outward.begin_answer()
        outward.write(b"head ")
        outward.write(b"body")
        outward.write(b"more")
    await asyncio.sleep(0)
    assert noting.sent == [b"head body", b"more"] * 2


async def test_a_head_does_not_wait_for_a_body_that_takes_its_time(outward: Outward, noting: Noting) -> None:
    outward.begin_answer()
    outward.write(b"head")
    await asyncio.sleep(0)
    assert noting.sent == [b"head"]
    outward.write(b"body")
    assert noting.sent == [b"head", b"body"]


async def test_a_head_goes_out_before_the_end(outward: Outward, noting: Noting) -> None:
    outward.begin_answer()
    outward.write(b"head")
    outward.close()
    await asyncio.sleep(0)
    assert noting.sent == [b"head", b"closed"]


async def test_nothing_is_written_to_a_connection_that_is_gone(outward: Outward, noting: Noting) -> None:
    outward.begin_answer()
    outward.write(b"head")
    outward.lost()
    await asyncio.sleep(0)
    assert noting.sent == []


async def test_who_waits_for_a_slow_body_has_its_head(server: Server) -> None:
    server.gap.clear()
    reader, writer = await server.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    server.gap.set()
    assert (head[:15], await reader.readexactly(2)) == (b"HTTP/1.1 200 OK", b"xx")
    writer.close()


async def test_answers_without_a_body_come_in_their_order(server: Server) -> None:
    asked = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = await server.send(asked + asked + asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert [answer[:15] for answer in answers.split(b"\r\n\r\n")] == [b"HTTP/1.1 200 OK"] * 3 + [b""]
