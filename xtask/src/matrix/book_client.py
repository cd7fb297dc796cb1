"""A client as in the book: one question after another, each answer read until its full stop."""
import socket
import sys

QUESTIONS = (b"Beautiful is better than?", b"Explicit is better than?", b"Simple is better than?")


def receive_until(stream, suffix):
    message = stream.recv(4096)
    if not message:
        raise EOFError("the server closed")
    while not message.endswith(suffix):
        data = stream.recv(4096)
        if not data:
            raise IOError("cut short: {!r}".format(message))
        message += data
    return message


with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as stream:
    for question in QUESTIONS:
        stream.sendall(question)
        print(question.decode("ascii"), receive_until(stream, b".").decode("ascii"))
