"""Serves an application by uvicorn, in processes of its own."""

import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy.engine import URL

# Four workers with the default pools could open more connections than a server accepts.
ROUTER = """
from fastapi import FastAPI
from sqlmodel_alembic_async import Database
from sqlmodel_alembic_async.fastapi import create_router

database = Database(pool_size=3, max_overflow=0)
app = FastAPI()
app.include_router(create_router(database))
"""

_PATIENCE = 60  # Seconds; only a test that fails waits so long.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # A client makes one by itself, which takes longer than a request.
_STARTED = "Application startup complete"
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Server:
    """A process of uvicorn, with its workers."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=_PATIENCE, verify=_NO_TLS)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.terminate()
        return self.process.wait(_PATIENCE)


@contextmanager
def serving(code: str, folder: Path, url: URL, *, workers: int = 1) -> Iterator[Server]:
    """Serve an application; at the end, SIGTERM must stop it, and it must have logged no warning."""
    (folder / "application.py").write_text(code, encoding="utf-8")
    log_file = folder / "uvicorn.log"
    warnings = ["-W", "error"]
    if workers > 1:  # The parent of the workers does not close the socket on which they listen.
        warnings += ["-W", "ignore:unclosed <socket.socket:ResourceWarning"]
    command = [sys.executable, *warnings, "-m", "uvicorn", "application:app", "--port", "0", "--no-access-log"]
    environment = os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        server = Server(process, _port(process, log_file, workers), log_file)
        yield server
        assert server.stop() in (0, -15), server.log
        assert "Warning" not in server.log, server.log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log_file: Path, workers: int) -> int:
    """Wait until all workers accept requests."""
    end = time.monotonic() + _PATIENCE
    while (log := log_file.read_text(encoding="utf-8")).count(_STARTED) < workers or not _ADDRESS.search(log):
        assert process.poll() is None, log
        assert time.monotonic() < end, log
        time.sleep(0.02)
    address = _ADDRESS.search(log)
    assert address
    return int(address[1])


@asynccontextmanager
async def served(code: str, folder: Path, url: URL) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application, and yield a client."""
    with serving(code, folder, url) as server:
        async with server.client() as client:
            yield client
