# A gRPC server that says GOAWAY on connections of a certain age, and closes them a while later. Prints its port, and once
# there is a file `tell`, how many calls it has had, and on how many connections.
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

age, grace = sys.argv[1:]
calls, peers, lock = 0, set(), threading.Lock()


def say(request, context):
    global calls
    with lock:
        calls += 1
        peers.add(context.peer())
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
print(calls, len(peers), flush=True)
server.wait_for_termination()
