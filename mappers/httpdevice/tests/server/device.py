"""A device that speaks HTTP, driven over standard input.

The argument is its port. GET /state answers all values as JSON; PUT /set/NAME takes one. Every line of input is a command,
answered by one line:
  get NAME          -> the value, as JSON
  set NAME VALUE    -> ok; the value is JSON
  mode WORD         -> ok; from now on: well, slow, broken, busy, login, huge or wide
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

values = {}
mode = ["well"]
gets = [0]
agents = ["none"]


class Device(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A kept connection on which nothing comes is closed.
    timeout = 1

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        gets[0] += 1
        agents[0] = self.headers.get("User-Agent", "none")
        if mode[0] == "slow":
            time.sleep(3)
        if mode[0] == "broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.close_connection = True
            return
        if mode[0] == "busy":
            return self.answer(503, "later")
        if mode[0] == "login" and self.headers.get("Authorization") != "Bearer secret":
            return self.answer(401, "who is there")
        if mode[0] == "huge":
            return self.answer(200, " " * (2 << 20))
        if mode[0] == "wide":
            return self.answer(200, '{"x":[' + "[]," * ((4 << 20) // 3 - 10) + '0],"a":7}')
        text = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in values.items()) + "}"
        self.answer(200, text)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        json.loads(body)
        values[self.path.rsplit("/", 1)[1]] = body
        self.answer(200, "{}")


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Device)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    verb, name, *rest = line.rstrip("\n").split(" ", 2)
    if verb == "set":
        values[name] = rest[0]
    elif verb == "mode":
        mode[0] = name
    print(gets[0] if name == "gets" else agents[0] if name == "agent" else values.get(name, "none") if verb == "get" else "ok", flush=True)
