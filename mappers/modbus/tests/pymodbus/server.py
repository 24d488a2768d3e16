"""A Modbus device made of pymodbus, driven over standard input.

The argument says how it is reached: `tcp`, `rtuovertcp` or `serial`. The first line of the output is its port, or the far end of
its serial line: a pair of pseudo terminals with what one says passed on to the other. Then every line of input is a command, answered by one line:
  get TABLE ADDRESS COUNT       -> the values, separated by spaces
  set TABLE ADDRESS VALUE...    -> ok
TABLE is coil, input, holding or register (input register). Values are whole numbers.
"""

import asyncio
import os
import pty
import sys
import threading
import tty

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

FUNCTIONS = {"coil": 1, "input": 2, "holding": 3, "register": 4}
SIZE = 200


def answer(device, line):
    verb, table, address, *rest = line.split()
    function, address = FUNCTIONS[table], int(address)
    if verb == "get":
        return " ".join(str(int(value)) for value in device.getValues(function, address, int(rest[0])))
    if verb == "set":
        values = [int(value) for value in rest]
        if table in ("coil", "input"):
            values = [bool(value) for value in values]
        device.setValues(function, address, values)
        return "ok"
    raise ValueError(line)


def serial_line():
    ends = [pty.openpty() for _ in range(2)]
    for _, slave in ends:
        tty.setraw(slave)

    def pass_on(source, target):
        while data := os.read(source, 512):
            os.write(target, data)

    (one, _), (other, _) = ends
    for pair in ((one, other), (other, one)):
        threading.Thread(target=pass_on, args=pair, daemon=True).start()
    return [os.ttyname(slave) for _, slave in ends]


async def serve(context, mode):
    if mode == "serial":
        near, far = serial_line()
        server = ModbusSerialServer(context, framer=FramerType.RTU, port=near, baudrate=115200)
        await server.serve_forever(background=True)
        return server, far
    framer = FramerType.RTU if mode == "rtuovertcp" else FramerType.SOCKET
    server = ModbusTcpServer(context, framer=framer, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    return server, server.transport.sockets[0].getsockname()[1]


async def main():
    # A block's addresses begin with 1 where the protocol's begin with 0.
    block = lambda value: ModbusSequentialDataBlock(1, [value] * SIZE)
    device = ModbusDeviceContext(di=block(False), co=block(False), hr=block(0), ir=block(0))
    server, place = await serve(ModbusServerContext(devices=device, single=True), sys.argv[1])
    print(place, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(answer(device, line), flush=True)
    await server.shutdown()


asyncio.run(main())
