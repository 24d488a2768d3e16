"""A camera that speaks HTTP, driven over standard input.

The argument is its port. GET /snapshot is a picture, numbered, behind a start and before an end as JPEG has them; GET /stream is
pictures without an end, each 20 ms later; GET /plain the same without their lengths; GET /level is 7. Every line of input is a
command, answered by one line:
  mode WORD -> ok; from now on: well, silent, text, endless (one picture that does not end) or broken (a stream that ends)
  count     -> how many pictures of /snapshot were asked for
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode = ["well"]
count = [0]


def picture(number):
    return b"\xff\xd8" + b"picture %d" % number + b"\xff\xd9"


class Camera(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def head(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def do_GET(self):
        if self.path == "/level":
            self.head("text/plain")
            return self.wfile.write(b"7")
        if mode[0] == "silent":
            return time.sleep(60)
        if mode[0] == "text":
            self.head("text/html")
            return self.wfile.write(b"<html>log in</html>")
        if self.path == "/snapshot":
            count[0] += 1
            self.head("image/jpeg")
            return self.wfile.write(picture(count[0]))
        self.head("multipart/x-mixed-replace; boundary=frame")
        number = 0
        try:
            while True:
                number += 1
                bytes = picture(number)
                length = b"Content-Length: %d\r\n" % len(bytes) if self.path == "/stream" else b""
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n")
                while mode[0] == "endless":
                    self.wfile.write(b"x" * 65536)
                self.wfile.write(bytes + b"\r\n")
                if mode[0] == "broken" and number == 2:
                    return
                time.sleep(0.02)
        except OSError:
            return


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Camera)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    verb, *rest = line.split()
    if verb == "mode":
        mode[0] = rest[0]
    print(count[0] if verb == "count" else "ok", flush=True)
