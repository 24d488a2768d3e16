"""WSDiscovery's publisher, from PyPI: it answers for a camera on each network of this machine.

The argument is the camera's address. It says `ready` and the endpoint reference first, and ends with its input.
"""

import sys

from wsdiscovery import QName, threaded
from wsdiscovery.publishing import ThreadedWSPublishing


def no_ipv6(_):
    raise OSError("its thread for IPv6 fails at answers to IPv4")


threaded.NetworkingThreadIPv6 = no_ipv6
publisher = ThreadedWSPublishing()
publisher.start()
publisher.publishService([QName("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter")], [], [sys.argv[1]])
print("ready", publisher.uuid, flush=True)
sys.stdin.read()
