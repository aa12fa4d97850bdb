"""The broken network itself: what a late copy, a cut answer and a silent connection look like from both ends."""

from __future__ import annotations

import random
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

import pytest

from streamer.dev_broker.process import free_ports
from tests.faults import net_late
from tests.faults.cluster import wait_for
from tests.faults.net_late import Late, Twice
from tests.faults.net_rules import Aimed, Cut, Delay, Drop, HalfOpen, Hold, HoldFind
from tests.faults.net_strikes import RULES
from tests.faults.proxy import Link, Proxy, Rule
from tests.faults.wire import SIZE, Api, Request, error_of, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 10.0
PRODUCER = "group-1"


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def request(api: Api, number: int, version: int = 1, producer: str = PRODUCER) -> bytes:
    """The head of a request as librdkafka writes it, and the transactional id behind it."""
    return struct.pack(">hhi", api, version, number) + text("rdkafka") + text(producer)


class Broker:
    """Notes the requests that arrive, in order, and answers each with its number, no throttle and no error."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[int, int]] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while (frame := receive(connection)) is not None:
                found = parse(frame)
                self.seen.append((found.api, found.correlation))
                send(connection, struct.pack(">iih", found.correlation, 0, 0))


def send(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(SIZE.pack(len(frame)) + frame)


def receive(connection: socket.socket) -> bytes | None:
    """A frame; None where the connection ended before it was whole."""
    try:
        size = connection.recv(4, socket.MSG_WAITALL)
        body = connection.recv(SIZE.unpack(size)[0], socket.MSG_WAITALL) if len(size) == 4 else b""
    except ConnectionResetError:
        return None
    return body if len(size) == 4 and len(body) == SIZE.unpack(size)[0] else None


class Bed:
    """A broker, the proxy in front of it, and connections through that."""

    def __init__(self, proxy: Proxy, broker: Broker, port: int) -> None:
        self.proxy, self.broker, self._port = proxy, broker, port
        self._number = 0

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.settimeout(WAIT_S)
        return connection

    def ask(self, connection: socket.socket, api: Api) -> bytes | None:
        """One request and its answer; the numbers of requests go up by one."""
        self._number += 1
        send(connection, request(api, self._number))
        return receive(connection)

    def set(self, rule: Aimed) -> None:
        rule._from = 0.0  # at once
        self.proxy.rule = rule


@pytest.fixture
def bed() -> Iterator[Bed]:
    listen, target = free_ports(2)
    with Broker(target) as broker, Proxy(listen, target) as proxy:
        yield Bed(proxy, broker, listen)
    assert proxy.errors == []


def dice(seed: int = 7) -> random.Random:
    return random.Random(seed)


def test_a_head_is_read_in_both_layouts() -> None:
    plain = parse(request(Api.END_TXN, 7))
    assert (plain.name, plain.version, plain.correlation, plain.producer) == ("END_TXN", 1, 7, PRODUCER)
    long = "g" * 200  # its compact length takes two bytes
    body = struct.pack(">hhi", Api.TXN_OFFSET_COMMIT, 3, 8) + text("c") + b"\x00" + bytes([201 & 0x7F | 0x80, 1]) + long.encode()
    assert parse(body).producer == long
    fetch = parse(struct.pack(">hhi", Api.FETCH, 12, 9) + text("c") + b"\x00rest")
    assert (fetch.name, fetch.producer) == ("FETCH", "")
    assert error_of(plain, struct.pack(">iih", 7, 0, 47)) == 47


def test_what_nobody_breaks_passes(bed: Bed) -> None:
    with bed.connect() as client:
        assert [bed.ask(client, api) for api in (Api.FETCH, Api.PRODUCE)] == [struct.pack(">iih", n, 0, 0) for n in (1, 2)]
    assert bed.broker.seen == [(Api.FETCH, 1), (Api.PRODUCE, 2)]


@pytest.mark.parametrize("behind", net_late.BEHIND)
def test_a_late_copy_arrives_inside_the_next_transaction(bed: Bed, behind: Api | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net_late, "BEHIND", (behind,))
    rule = Late(bed.proxy, dice(), "group", (Api.END_TXN,))
    bed.set(rule)
    with bed.connect() as first:
        bed.ask(first, Api.TXN_OFFSET_COMMIT)
        assert bed.ask(first, Api.END_TXN) is None  # reset
    rule.stopping = True
    with bed.connect() as second:
        assert bed.ask(second, Api.END_TXN) is not None  # sent again
        wait_for("the copy", lambda: bed.ask(second, behind or Api.PRODUCE) is not None and rule.hits == 1, WAIT_S, 0.05)
        bed.ask(second, Api.END_TXN)
    numbers = [number for api, number in bed.broker.seen if api == Api.END_TXN]
    assert numbers == [3, 2, bed._number]  # its like, the copy, that of the next transaction
    assert (rule.resent, rule.open, dict(rule.answers)) == (1, 0, {"0": 1})


def test_a_copy_whose_transaction_nobody_ends_is_dropped(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.net_late.KEPT_S_MAX", 0.05)
    rule = Late(bed.proxy, dice(), "group", (Api.END_TXN,))
    bed.set(rule)
    with bed.connect() as first:
        assert bed.ask(first, Api.END_TXN) is None
    wait_for("the end of its time", lambda: rule.expired == 1, WAIT_S, 0.01)
    assert (rule.hits, rule.open) == (0, 0)


def test_the_second_reset_is_the_one_that_keeps(bed: Bed) -> None:
    rule = Twice(bed.proxy, dice(), "group", (Api.END_TXN,))
    for kept in (False, True):
        bed.set(rule)
        with bed.connect() as client:
            assert bed.ask(client, Api.END_TXN) is None
        assert bool(rule.open) is kept
    assert bed.broker.seen == []


def test_half_an_answer_and_a_reset(bed: Bed) -> None:
    bed.set(Cut(bed.proxy, dice(), "group", (Api.PRODUCE,)))
    with bed.connect() as client:
        assert bed.ask(client, Api.PRODUCE) is None
    assert bed.broker.seen == [(Api.PRODUCE, 1)]


def test_a_silent_connection_is_not_closed_before_its_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HalfOpen, "DEAF_S", (0.3,))
    bed.set(HalfOpen(bed.proxy, dice(), "group", (Api.PRODUCE,)))
    with bed.connect() as client:
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            bed.ask(client, Api.PRODUCE)
        client.settimeout(WAIT_S)
        assert receive(client) is None
    assert bed.broker.seen == []


@pytest.mark.parametrize("make", [Drop, Delay, Hold, HoldFind])
def test_other_rules_hit_what_they_aim_at(bed: Bed, make: type[Aimed]) -> None:
    aim = Api.FIND_COORDINATOR if make is HoldFind else Api.FETCH
    rule = make(bed.proxy, dice(), "group", (aim,))
    bed.set(rule)
    with bed.connect() as client:
        assert (bed.ask(client, aim) is None) is (make is Drop)
    rule.stopping = True
    assert rule.hits >= 1
    assert rule.words().endswith(aim.name)
    wait_for("its end", lambda: rule.open == 0, WAIT_S)


def test_what_is_held_back_is_over_when_its_connection_ends(bed: Bed) -> None:
    class HoldAnswers(Aimed):
        async def answer(self, link: Link, request: Request, answer: bytes) -> None:
            self._hit(request)
            await self._hold(60.0)

    rule = HoldAnswers(bed.proxy, dice(), "group", (Api.FETCH,))
    bed.set(rule)
    with bed.connect() as client:
        send(client, request(Api.FETCH, 1))
        wait_for("the answer", lambda: rule.open == 1, WAIT_S, 0.01)
    wait_for("the end of its connection", lambda: rule.open == 0, WAIT_S, 0.01)


def test_other_groups_are_left_alone(bed: Bed) -> None:
    bed.set(Drop(bed.proxy, dice(), "another group", (Api.END_TXN,)))
    with bed.connect() as client:
        assert bed.ask(client, Api.END_TXN) is not None


def test_every_fault_of_the_network_has_a_rule_and_hits_that_prove_it() -> None:
    assert len(RULES) >= 10
    assert all(issubclass(make, Rule) and wanted >= 3 for make, _, wanted in RULES.values())
