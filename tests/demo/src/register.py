"""Prints one holding register of the device."""

import sys

from pymodbus.client import ModbusTcpClient

with ModbusTcpClient("127.0.0.1", port=int(sys.argv[1])) as client:
    print(client.read_holding_registers(int(sys.argv[2]), count=1, device_id=1).registers[0])
