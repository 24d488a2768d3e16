"""An HTTP server that is driven over standard input; what it makes of a request is its role's to say.

The first line that it says is its port. Every line of input is a command, answered by one line:
  on, off       -> ok; off closes its port and every connection
  mode WORD     -> ok; from now on: well, silent (it never answers), or what the role knows
  took          -> what it has taken, as JSON, in order
  asked         -> how many requests have come
"""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode = ["well"]
took = []
asked = [0]
connections = set()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def process_request(self, request, address):
        connections.add(request)
        super().process_request(request, address)


def serve(judge):
    """judge(path, headers, body, mode) answers a status, the answer's body, its headers, and what it has taken."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            asked[0] += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if mode[0] == "silent":
                time.sleep(600)
            try:
                status, answer, headers, taken = judge(self.path, self.headers, body, mode[0])
            except (ValueError, KeyError, AssertionError) as error:
                status, answer, headers, taken = 400, f"{type(error).__name__}: {error}".encode(), {}, []
            took.extend(taken)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

    def start(port):
        server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    server = start(0)
    port = server.server_address[1]
    print(port, flush=True)
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        answer = "ok"
        if word == "on":
            server = start(port)
        elif word == "off":
            server.shutdown()
            server.server_close()
            for connection in list(connections):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            connections.clear()
        elif word == "mode":
            mode[0] = rest
        elif word == "took":
            answer = json.dumps(took)
        elif word == "asked":
            answer = str(asked[0])
        else:
            answer = f"what is {word}?"
        print(answer, flush=True)
