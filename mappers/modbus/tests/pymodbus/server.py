"""A Modbus TCP device made of pymodbus, driven over standard input.

The first line of the output is its port. Then every line of input is a command, answered by one line:
  get TABLE ADDRESS COUNT       -> the values, separated by spaces
  set TABLE ADDRESS VALUE...    -> ok
TABLE is coil, input, holding or register (input register). Values are whole numbers.
"""

import asyncio
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

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


async def main():
    # A block's addresses begin with 1 where the protocol's begin with 0.
    block = lambda value: ModbusSequentialDataBlock(1, [value] * SIZE)
    device = ModbusDeviceContext(di=block(False), co=block(False), hr=block(0), ir=block(0))
    server = ModbusTcpServer(ModbusServerContext(devices=device, single=True), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(answer(device, line), flush=True)
    await server.shutdown()


asyncio.run(main())
