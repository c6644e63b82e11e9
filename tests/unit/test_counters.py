"""Counters that processes share: exact enough for limits, whoever counts."""

import os
import random

from rookery.web.counters import HOUR, MINUTE, Counters
from rookery.web.limits import Limiter


def test_each_key_and_window_is_counted_apart() -> None:
    counters = Counters()
    assert [counters.add(b"ada", MINUTE, 7) for _ in range(3)] == [1, 2, 3]
    assert counters.add(b"bob", MINUTE, 7) == 1
    assert counters.add(b"ada", HOUR, 7) == 1
    assert counters.add(b"ada", MINUTE, 8) == 1
    assert counters.add(b"ada", MINUTE, 2**33 + 9) == 1


def test_workers_count_together_and_one_that_is_behind_counts_nothing_old() -> None:
    ours = Counters(3)
    first, second, third = (ours.seen_by(number) for number in range(3))
    assert [first.add(b"ada", MINUTE, 1), second.add(b"ada", MINUTE, 1), first.add(b"ada", MINUTE, 1)] == [1, 2, 3]
    assert third.add(b"ada", MINUTE, 2) == 1
    assert first.add(b"ada", MINUTE, 2) == 2
    assert second.add(b"bob", MINUTE, 2) == 1
    assert second.add(b"ada", MINUTE, 2) == 3


def test_forked_processes_share_one_limit() -> None:
    workers, each, limit = 4, 500, 1_200
    counters = Counters(workers)
    reads, writes = os.pipe()
    children = []
    for number in range(workers):
        child = os.fork()
        if not child:
            limiter = Limiter(lambda: 6_000.0, counters.seen_by(number))
            let_in = sum(limiter.count("192.0.2.1", limit).remaining >= 0 for _ in range(each))
            os.write(writes, b"%d " % let_in)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    os.close(writes)
    with os.fdopen(reads, "rb") as told:
        let_in = sum(map(int, told.read().split()))
    # A worker that is held up between its count and the sum sees later ones, too, and refuses one that came in time.
    assert limit - workers < let_in <= limit + 2 * workers, "as many as of one process, but for those of one moment"


def test_counts_of_many_clients_are_hardly_ever_too_high_and_never_too_low() -> None:
    chance = random.Random(1)
    counters = Counters()
    clients = [b"client %d" % number for number in range(5_000)]
    right = dict.fromkeys(clients, 0)
    wrong = 0
    for _ in range(50_000):
        client = chance.choice(clients)
        right[client] += 1
        counted = counters.add(client, MINUTE, 1)
        assert counted >= right[client]
        wrong += counted > right[client]
    assert wrong < 50_000 * 0.02
