# gRPC clients, each with a channel of its own, that call at a pace for some seconds. Prints how many calls were answered
# and how many failed.
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

target, channels, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
PACE = 0.05


def play(number):
    answered = failed = 0
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        say = channel.unary_unary("/lab.Echo/Say")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                say(b"hello", timeout=10)
                answered += 1
            except grpc.RpcError as error:
                print(error, file=sys.stderr, flush=True)
                failed += 1
            time.sleep(PACE)
    return answered, failed


with ThreadPoolExecutor(channels) as clients:
    counts = list(clients.map(play, range(channels)))
print(sum(answered for answered, _ in counts), sum(failed for _, failed in counts), flush=True)
