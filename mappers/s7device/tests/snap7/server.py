"""A PLC that we did not write, driven over standard input: the server of python-snap7.

The argument is its port. It has block 1, bit memory, inputs and outputs, 600 bytes each. Every line of input is a command, answered
by one line:
  get AREA BYTE COUNT -> the bytes in hexadecimal; AREA is DB1, M, I or Q
  set AREA BYTE HEX   -> ok
"""

import sys

from snap7.server import Server
from snap7.type import SrvArea

areas = {name: bytearray(600) for name in ("DB1", "M", "I", "Q")}
server = Server(log=False)
server.register_area(SrvArea.DB, 1, areas["DB1"])
server.register_area(SrvArea.MK, 0, areas["M"])
server.register_area(SrvArea.PE, 0, areas["I"])
server.register_area(SrvArea.PA, 0, areas["Q"])
assert server.start_to("127.0.0.1", int(sys.argv[1])) == 0
print("ready", flush=True)
for line in sys.stdin:
    verb, area, start, what = line.split()
    start = int(start)
    if verb == "get":
        print(areas[area][start : start + int(what)].hex(), flush=True)
    else:
        new = bytes.fromhex(what)
        areas[area][start : start + len(new)] = new
        print("ok", flush=True)
