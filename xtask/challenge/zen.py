"""A zen server in thirty lines of another language: a thread for each client."""

import socketserver
import sys

ANSWERS = {
    b"Beautiful is better than?": b"ugly.",
    b"Explicit is better than?": b"implicit.",
    b"Simple is better than?": b"complex.",
}


class Client(socketserver.BaseRequestHandler):
    def handle(self):
        question = b""
        while chunk := self.request.recv(4096):
            for byte in chunk:
                if question or byte not in b" \t\r\n":
                    question += bytes([byte])
                if len(question) > 256:
                    self.request.sendall(b"Error: question too long.")
                    self.request.shutdown(1)
                    while self.request.recv(4096):
                        pass
                    return
                if question.endswith(b"?"):
                    self.request.sendall(ANSWERS.get(question, b"Error: unknown aphorism."))
                    question = b""


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.request_queue_size = 128
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Client).serve_forever()
