"""A client with a pool: asks once on each of its connections, leaves them alone until the file `go` is there, and asks
on all of them again. Prints its ports, and what came of the second requests.

Arguments: host, port, connections, how many seconds an answer may take.
"""

import pathlib
import socket
import sys
import time

host, port, connections, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
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


pool = [socket.create_connection((host, port), patience) for _ in range(connections)]
for connection in pool:
    connection.sendall(REQUEST)
    assert outcome(connection) == "answered"
print(*(connection.getsockname()[1] for connection in pool), flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.05)
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
