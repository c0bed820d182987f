"""A small HTTP client: keep-alive connections that each send one request after the other.

It costs about a tenth of a server's time, so that it is never what is measured; `Load.client_share` tells.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Self

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Load:
    """The result of a load: seconds of each answer that was a success, the number of the others, and the duration."""

    latencies: list[float]
    failures: int
    seconds: float
    client_share: float


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""
        self._body_start = self._end = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> Self:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._end:
            head_end = self._received.find(_HEAD_END)
            if head_end < 0:
                return
            head = self._received[:head_end].lower()
            start = head.index(_LENGTH) + len(_LENGTH)
            stop = head.find(b"\r", start)
            self._body_start = head_end + len(_HEAD_END)
            self._end = self._body_start + int(head[start : stop if stop > 0 else None])
        if len(self._received) >= self._end:
            answer = int(self._received[9:12]), self._received[self._body_start : self._end]
            self._received, self._end = b"", 0
            if self._answer is not None:
                self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        if self._transport.is_closing():
            raise ConnectionError("the server closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    content = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{content}\r\n".encode() + body


async def load(connections: list[Connection], make: Callable[[], bytes], seconds: float) -> Load:
    """Send requests on all connections for so long; then wait for the answers that are missing."""
    latencies: list[float] = []
    failures = 0
    started, cpu = perf_counter(), process_time()

    async def send(connection: Connection) -> None:
        nonlocal failures
        while (sent := perf_counter()) - started < seconds:
            status, _ = await connection.send(make())
            if status < 300:
                latencies.append(perf_counter() - sent)
            else:
                failures += 1

    await asyncio.gather(*map(send, connections))
    lasted = perf_counter() - started
    return Load(latencies, failures, lasted, (process_time() - cpu) / lasted)
