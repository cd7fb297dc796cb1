"""A zen server that passes the first stage: one client at a time, one question a read. The rest is yours."""

import socket
import sys

ANSWERS = {
    b"Beautiful is better than?": b"ugly.",
    b"Explicit is better than?": b"implicit.",
    b"Simple is better than?": b"complex.",
}

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
while True:
    client, _ = listener.accept()
    with client:
        try:
            while question := client.recv(4096):
                client.sendall(ANSWERS.get(question, b"Error: unknown aphorism."))
        except OSError:
            pass  # the client is gone
