"""The device of the story: holding register 0 counts up, holding register 1 is what somebody wrote."""

import asyncio
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import StartAsyncTcpServer

HOLDING = 3


async def count(device):
    value = 200
    while True:
        value += 1
        device.setValues(HOLDING, 0, [value % 60000])
        await asyncio.sleep(0.5)


async def main(port):
    device = ModbusDeviceContext(hr=ModbusSequentialDataBlock(0, [0] * 100))
    context = ModbusServerContext(devices=device, single=True)
    counter = asyncio.create_task(count(device))
    await StartAsyncTcpServer(context, address=("127.0.0.1", port))
    counter.cancel()


asyncio.run(main(int(sys.argv[1])))
