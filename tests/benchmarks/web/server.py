"""Serve an application with one worker of uvicorn: `python -m tests.benchmarks.web.server NAME URL`; print its port."""

import socket
import sys

import uvicorn

from .apps import build


def main() -> None:
    name, url = sys.argv[1:]
    # asyncio sets TCP_NODELAY only where the protocol is named; without it, each answer waits 40 ms for an ACK.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(name, url), loop="asyncio", access_log=False, log_level="warning"))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
