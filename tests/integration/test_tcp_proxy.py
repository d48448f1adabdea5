"""The proxy between a client and the embedded Postgres: each of its faults is what it says."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.servers.tcp_proxy import Direction, TcpProxy


@pytest.fixture
def url(postgres: str) -> str:
    return postgres


@pytest.fixture
def proxy(url: str) -> Iterator[TcpProxy]:
    port = urlsplit(url).port
    assert port is not None
    with TcpProxy("127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture
def table(url: str) -> Iterator[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        yield url
        connection.execute("DROP TABLE kept")


def through(url: str, proxy: TcpProxy) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")


def is_commit(block: bytes, direction: Direction) -> bool:
    return direction == "to_server" and b"COMMIT" in block


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        # Waits for the transaction that was cut off to end one way or the other.
        connection.execute("LOCK TABLE kept")
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        return int(row[0])


def test_the_proxy_forwards(url: str, proxy: TcpProxy) -> None:
    with psycopg.connect(through(url, proxy)) as connection:
        assert connection.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1000000,)


def test_cut_breaks_open_connections_and_admits_new_ones(url: str, proxy: TcpProxy) -> None:
    connection = psycopg.connect(through(url, proxy))
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    test_the_proxy_forwards(url, proxy)


def test_refuse_keeps_open_connections_and_admits_none_until_forward(url: str, proxy: TcpProxy) -> None:
    with psycopg.connect(through(url, proxy)) as connection:
        proxy.refuse()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(through(url, proxy))
    proxy.forward()
    test_the_proxy_forwards(url, proxy)


def test_deaf_admits_and_does_not_answer_until_forward(url: str, proxy: TcpProxy) -> None:
    proxy.deaf()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(through(url, proxy), connect_timeout=2)
    proxy.forward()
    test_the_proxy_forwards(url, proxy)


@pytest.mark.parametrize(("after", "kept"), [(False, 0), (True, 1)])
def test_a_commit_is_cut_before_or_after_it_is_executed_and_looks_the_same(
    table: str, proxy: TcpProxy, *, after: bool, kept: int
) -> None:
    connection = psycopg.connect(through(table, proxy))
    connection.execute("INSERT INTO kept VALUES (1)")
    fired = proxy.cut_when(is_commit, after=after)
    with pytest.raises(psycopg.OperationalError) as raised:
        connection.commit()
    assert raised.value.sqlstate is None
    assert fired.wait(300)
    assert count(table) == kept
    test_the_proxy_forwards(table, proxy)


def test_an_answer_is_cut_before_or_after_it_is_handed_on(url: str, proxy: TcpProxy) -> None:
    def is_answer(block: bytes, direction: Direction) -> bool:
        return direction == "to_client" and b"needle" in block

    for after in (False, True):
        connection = psycopg.connect(through(url, proxy), autocommit=True)
        fired = proxy.cut_when(is_answer, after=after)
        if after:
            assert connection.execute("SELECT 'needle'").fetchone() == ("needle",)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 'needle'")
        assert fired.wait(300)
