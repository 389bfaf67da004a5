"""Keep-alive connections to an endpoint, few enough, never all taken by read-ahead or one user."""

import functools
import ssl
from collections.abc import Callable

import trio

from stsfs.store.counters import StoreCounters
from stsfs.store.http_connection import AddressCheck, Connection, connect
from stsfs.store.reach import Reach
from stsfs.store.shares import OWNER, Shares

IDLE_S = 15.0
"""S3 closes idle connections after about 20 s; we forget them before."""


class ConnectionPool:
    """Lends connections, most recently used first.

    INVARIANT: at most connections_max are in use, and at most three quarters of them serve
    read-ahead, so that a reader who waits for bytes always finds one; but where others have taken
    them, a user still gets a few, up to half as many more (see `shares`).
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        connections_max: int,
        counters: StoreCounters,
        check: AddressCheck | None = None,
    ) -> None:
        """check raises for an address that the host must not have (see `connect`)."""
        self._address = (host, port, tls)
        self._check = check
        self._idle: list[Connection] = []
        self._closed = False
        self._all = Shares(connections_max)
        self._ahead = Shares(max(1, connections_max * 3 // 4))
        self._counters = counters

    async def take(self, *, ahead: bool, fresh: bool = False) -> Connection:
        """A connection for one request and its answer; `give_back` must follow.

        fresh asks for a new one, after an idle one turned out to be closed. Raises
        ConnectionBroken when none can be opened.
        """
        if ahead:
            await self._ahead.acquire()
        try:
            owner = await self._all.acquire()
            try:
                connection = self._take_idle()
                if fresh and connection is not None:
                    connection.close()  # makes room for the new one
                    connection = None
                if connection is None:
                    connection = await connect(*self._address, check=self._check)
                    self._counters.connections_opened += 1
                connection.ahead, connection.owner = ahead, owner
            except BaseException:
                self._all.release(owner)
                raise
        except BaseException:
            if ahead:
                self._ahead.release(OWNER.get())
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """End of a request: kept for the next one when its answer was received whole."""
        if connection.reusable and not self._closed:
            connection.idle_since_s = trio.current_time()
            self._idle.append(connection)
        else:
            connection.close()
        self._all.release(connection.owner)
        if connection.ahead:
            self._ahead.release(connection.owner)

    def close(self) -> None:
        """Close the idle connections; those in use close when their request ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> Connection | None:
        oldest_s = trio.current_time() - IDLE_S
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.pop(0).close()
        while self._idle:
            connection = self._idle.pop()
            if connection.silent:
                connection.reused = True
                return connection
            connection.close()
        return None


class HostPools:
    """A pool for each host, where hosts are learnt from what is asked for.

    Trouble with one host leaves the others' connections alone. Beyond hosts_max, the host that
    was not asked for longest is forgotten; requests to it that are under way end as they would.
    """

    def __init__(
        self,
        make_tls: Callable[[], ssl.SSLContext],
        *,
        hosts_max: int,
        connections_max: int,
        counters: StoreCounters,
        reach: Reach,
    ) -> None:
        """connections_max is for each host; make_tls is called when the first needs TLS.

        Only addresses within reach are connected to.
        """
        self._reach = reach
        self._make_tls = functools.cache(make_tls)
        self._hosts_max = hosts_max
        self._connections_max = connections_max
        self._counters = counters
        self._pools: dict[tuple[str, int, bool], ConnectionPool] = {}
        """The one asked for last is the last."""

    def of(self, host: str, port: int, *, tls: bool) -> ConnectionPool:
        """The pool of a host, made when first asked for. Not a checkpoint."""
        address = (host, port, tls)
        pool = self._pools.pop(address, None)
        if pool is None:
            if len(self._pools) >= self._hosts_max:
                self._pools.pop(next(iter(self._pools))).close()
            pool = ConnectionPool(
                host,
                port,
                self._make_tls() if tls else None,
                connections_max=self._connections_max,
                counters=self._counters,
                check=functools.partial(self._reach.check, tls=tls),
            )
        self._pools[address] = pool
        return pool

    def close(self) -> None:
        """Close the idle connections; those in use close when their request ends."""
        while self._pools:
            self._pools.popitem()[1].close()
