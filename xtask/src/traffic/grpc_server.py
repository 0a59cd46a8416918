# A gRPC server that says GOAWAY on connections of a certain age, and closes them a while later. Prints its port, and once
# there is a file `tell`, how many calls it has had, and on how many connections.
import os
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

age, grace = sys.argv[1:]
calls, connections, lock = 0, set(), threading.Lock()


def inode(peer):
    """The connection's socket: a port comes again within seconds where connections end with a reset, an inode does not."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            end = socket.socket(fileno=fd)
            try:
                address = end.getpeername()
            finally:
                end.detach()
        except OSError:
            continue
        if isinstance(address, tuple) and peer.endswith(f":{address[1]}"):
            return status.st_ino
    raise RuntimeError(f"no socket of {peer}")


def say(request, context):
    global calls
    connection = inode(context.peer())
    with lock:
        calls += 1
        connections.add(connection)
    return request


options = [("grpc.max_connection_age_ms", int(age)), ("grpc.max_connection_age_grace_ms", int(grace))]
server = grpc.server(ThreadPoolExecutor(16), options=options)
methods = {"Say": grpc.unary_unary_rpc_method_handler(say)}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("lab.Echo", methods)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
while not os.path.exists("tell"):
    time.sleep(0.05)
print(calls, len(connections), flush=True)
server.wait_for_termination()
