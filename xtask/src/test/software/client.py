"""A client with a pool: asks once on each of its connections, goes on with some of them until the file `go` is there, and
asks on all of them again. Says when the pool is there, and prints what came of the last requests.

Arguments: host, port, connections, how many of them are used all the time, how many seconds an answer may take.
"""

import pathlib
import socket
import sys
import time

host, port, connections, used, patience = sys.argv[1], *map(int, sys.argv[2:])
REQUEST = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def outcome(connection):
    try:
        answer = b""
        while not answer.endswith(b"ok\n"):
            data = connection.recv(4096)
            if not data:
                return "closed"
            answer += data
        return "answered"
    except TimeoutError:
        return "timed_out"
    except ConnectionResetError:
        return "reset"


def ask(connections):
    for connection in connections:
        connection.sendall(REQUEST)
        assert outcome(connection) == "answered"


pool = [socket.create_connection((host, port), patience) for _ in range(connections)]
ask(pool)
print("ready", flush=True)
while not pathlib.Path("go").exists():
    ask(pool[:used])
    time.sleep(0.2)
for connection in pool:
    connection.sendall(REQUEST)
deadline = time.monotonic() + patience
counts = {"answered": 0, "timed_out": 0, "reset": 0, "closed": 0}
for connection in pool:
    connection.settimeout(max(deadline - time.monotonic(), 0.01))
    counts[outcome(connection)] += 1
for connection in pool:
    connection.close()
print(*(counts[name] for name in ("answered", "timed_out", "reset", "closed")), flush=True)
time.sleep(3600)
