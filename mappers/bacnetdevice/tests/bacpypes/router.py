"""A router that we did not write, and a device behind it: bacpypes3.

The argument is its port. On network 5 behind it, at address 12, is device 77 with analog value 1. Each line of input is a command, answered by
one line:
  get       -> the present value
  set VALUE -> ok; somebody else gives it another value
"""

import asyncio
import sys

from bacpypes3.app import Application
from bacpypes3.appservice import ApplicationServiceAccessPoint
from bacpypes3.comm import bind
from bacpypes3.ipv4.link import NormalLinkLayer
from bacpypes3.local.analog import AnalogValueObject
from bacpypes3.local.device import DeviceObject
from bacpypes3.netservice import NetworkServiceAccessPoint, NetworkServiceElement
from bacpypes3.pdu import IPv4Address, LocalBroadcast, LocalStation
from bacpypes3.vlan import VirtualNetwork, VirtualNode


async def main():
    VirtualNetwork("field")
    router, element = NetworkServiceAccessPoint(), NetworkServiceElement()
    bind(element, router)
    outside = IPv4Address(f"127.0.0.1/8:{sys.argv[1]}")
    link = NormalLinkLayer(outside)
    router.bind(link, 1, outside)
    router.bind(VirtualNode(LocalStation(1), "field"), 5)

    device = DeviceObject(
        objectIdentifier=("device", 77),
        objectName="behind",
        vendorIdentifier=999,
        maxApduLengthAccepted=480,
        segmentationSupported="noSegmentation",
    )
    app = Application()
    app.asap = ApplicationServiceAccessPoint(device, app.device_info_cache)
    app.nsap, app.nse = NetworkServiceAccessPoint(), NetworkServiceElement()
    bind(app.nse, app.nsap)
    bind(app, app.asap, app.nsap)
    app.nsap.bind(VirtualNode(LocalStation(12), "field"), None, LocalStation(12))
    app.add_object(device)
    value = AnalogValueObject(
        objectIdentifier=("analog-value", 1), objectName="value", presentValue=4.5, covIncrement=0.1
    )
    app.add_object(value)

    await asyncio.gather(*link.server._transport_tasks)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = line.split()
        if words[0] == "set":
            value.presentValue = float(words[1])
            print("ok", flush=True)
        else:
            print(value.presentValue, flush=True)


asyncio.run(main())
