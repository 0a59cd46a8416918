"""What Python servers serve in tests: WSGI for gunicorn, ASGI for uvicorn."""

import asyncio
import os
import random
import signal
import sqlite3
import time

# Longer than a burst takes to arrive, so that each of its requests needs a connection of its own.
ANSWER_SECONDS = 0.03
# The event loop of uvicorn is blocked for so long at a time, 0 for never.
BLOCKED_SECONDS = float(os.environ.get("BLOCKED_SECONDS", "0"))


def seconds(path):
    """`/slow/5` takes 5 s."""
    return float(path.removeprefix("/slow/")) if path.startswith("/slow/") else ANSWER_SECONDS


def wait_for_lock(limit):
    """Waits within a library in C for a lock that nobody gives back, deaf to signals as long as Python's handlers go."""
    file = f"locked-{os.getpid()}.db"
    holder, waiting = [sqlite3.connect(file, timeout=limit, isolation_level=None) for _ in range(2)]
    holder.execute("BEGIN EXCLUSIVE")
    waiting.execute("BEGIN EXCLUSIVE")


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.startswith("/locked/"):
        wait_for_lock(float(path.removeprefix("/locked/")))
    length = 3
    if path == "/half":
        # The request's body stays unread, so that the kernel resets the connection of whoever is killed.
        length = 1_000_000
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    if path == "/half":
        # Ticks apart: the request, the answer, the end.
        time.sleep(ANSWER_SECONDS)
        write(b"x" * 10_000)
        time.sleep(ANSWER_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds(path))
    return [b"ok\n"]


def block():
    """Blocks as synchronous work does. Two of these overlap: a timer that is due with them waits for both."""
    time.sleep(BLOCKED_SECONDS)
    pause = BLOCKED_SECONDS * random.uniform(0.5, 2)
    asyncio.get_running_loop().call_later(pause, block)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if BLOCKED_SECONDS:
            for _ in range(2):
                asyncio.get_running_loop().call_soon(block)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(seconds(scope["path"]))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})
