"""Answers whoever connects, and never closes what its peers have closed."""

import select
import socket

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
poll = select.epoll()
poll.register(listener, select.EPOLLIN)
kept = {}
while True:
    for descriptor, _ in poll.poll():
        if descriptor == listener.fileno():
            peer, _ = listener.accept()
            kept[peer.fileno()] = peer
            poll.register(peer, select.EPOLLIN)
        elif data := kept[descriptor].recv(4096):
            kept[descriptor].sendall(data)
        else:
            poll.unregister(descriptor)
