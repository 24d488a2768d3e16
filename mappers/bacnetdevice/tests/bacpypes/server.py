"""A BACnet/IP device that we did not write, driven over standard input: bacpypes3. It is a BBMD, too.

The arguments are its port and its instance. It has values of each kind; the first of its analog values has priorities. Every line of input is
a command, answered by one line:
  get NAME             -> the present value
  set NAME VALUE       -> ok; somebody else gives it another value
  at NAME PRIORITY     -> what is at this priority, `null` or a number
  put NAME PRIORITY VALUE -> ok; somebody else's value at this priority, or `null`
  reliability NAME WORD -> ok; what is wrong with it, as no-sensor
  subscriptions        -> how many there are for changes
  forget               -> ok; without subscriptions, as after it was switched off
  starts               -> ok; the same, and it says that it is there
  asked                -> how often it was asked to tell of changes
  confirmed            -> how many changes that it told of were confirmed
  changes yes|no       -> ok; whether it does
  reads                -> how often several properties were read at once
  foreign              -> how many foreign devices there are
  multiple yes|no      -> ok; whether it has ReadPropertyMultiple
  room BYTES           -> ok; answers longer than that are not given
  object NAME, property NAME -> the standard's number, or `none`
"""

import asyncio
import struct
import sys

from bacpypes3.apdu import AbortPDU, ReadPropertyMultipleACK, SimpleAckPDU
from bacpypes3.basetypes import PriorityValue, PropertyIdentifier, Reliability
from bacpypes3.errors import ExecutionError, UnrecognizedService
from bacpypes3.ipv4.app import BBMDApplication
from bacpypes3.local.analog import AnalogInputObject, AnalogValueObject, AnalogValueObjectCmd
from bacpypes3.local.binary import BinaryValueObject
from bacpypes3.local.device import DeviceObject
from bacpypes3.local.multistate import MultiStateInputObject
from bacpypes3.local.object import Object as LocalObject
from bacpypes3.object import CharacterStringValueObject as _CharacterStringValueObject
from bacpypes3.object import IntegerValueObject as _IntegerValueObject
from bacpypes3.object import LargeAnalogValueObject as _LargeAnalogValueObject
from bacpypes3.object import PositiveIntegerValueObject as _PositiveIntegerValueObject
from bacpypes3.pdu import IPv4Address
from bacpypes3.primitivedata import ApplicationTag, Null, ObjectType, Real, TagList, TagNumber, Unsigned
from bacpypes3.service.cov import ChangeOfValueServices


class Long(Unsigned):
    """Its own encoding ends with 32 bits; the standard's does not."""

    def encode(self):
        data = struct.pack(">Q", self).lstrip(b"\0") or b"\0"
        return TagList([ApplicationTag(TagNumber.unsigned, data)])


class PositiveIntegerValueObject(LocalObject, _PositiveIntegerValueObject):
    presentValue: Long


class IntegerValueObject(LocalObject, _IntegerValueObject):
    pass


class LargeAnalogValueObject(LocalObject, _LargeAnalogValueObject):
    pass


class CharacterStringValueObject(LocalObject, _CharacterStringValueObject):
    pass


class Device(BBMDApplication, ChangeOfValueServices):
    has_multiple = True
    has_changes = True
    asked = 0
    reads = 0
    confirmed = 0
    room = None

    def __init__(self, device, address):
        ChangeOfValueServices.__init__(self)
        BBMDApplication.__init__(self, device, address)

    async def do_ReadPropertyMultipleRequest(self, apdu):
        self.reads += 1
        if not self.has_multiple:
            raise UnrecognizedService()
        await super().do_ReadPropertyMultipleRequest(apdu)

    async def do_SubscribeCOVRequest(self, apdu):
        self.asked += 1
        if not self.has_changes:
            raise ExecutionError(errorClass="services", errorCode="optionalFunctionalityNotSupported")
        await super().do_SubscribeCOVRequest(apdu)

    def cov_confirmation(self, cov, future):
        self.confirmed += isinstance(future.result(), SimpleAckPDU)

    async def response(self, apdu):
        if self.room is not None and isinstance(apdu, ReadPropertyMultipleACK):
            encoded = apdu.encode()
            if len(encoded.pduData) > self.room:
                apdu = AbortPDU(reason=4, context=apdu)
                apdu.apduSrv = True
        await super().response(apdu)


def value_of(thing):
    value = thing.presentValue
    return str(int(value)) if isinstance(thing, (BinaryValueObject, MultiStateInputObject)) else str(value)


def priority_value(text):
    return PriorityValue(null=()) if text == "null" else PriorityValue(real=float(text))


async def main():
    port, instance = int(sys.argv[1]), int(sys.argv[2])
    device = DeviceObject(
        objectIdentifier=("device", instance),
        objectName=f"device {instance}",
        vendorIdentifier=999,
        maxApduLengthAccepted=1476,
        segmentationSupported="noSegmentation",
    )
    app = Device(device, IPv4Address(f"127.0.0.1/8:{port}"))
    named = {
        "int": PositiveIntegerValueObject(objectIdentifier=("positive-integer-value", 1), presentValue=0),
        "float": AnalogValueObject(objectIdentifier=("analog-value", 2), presentValue=0.0, covIncrement=0.1),
        "double": LargeAnalogValueObject(objectIdentifier=("large-analog-value", 1), presentValue=0.0),
        "string": CharacterStringValueObject(objectIdentifier=("characterstring-value", 1), presentValue=""),
        "boolean": BinaryValueObject(objectIdentifier=("binary-value", 1), presentValue=0),
        "seen": MultiStateInputObject(objectIdentifier=("multi-state-input", 1), presentValue=1, numberOfStates=100),
        "level": IntegerValueObject(objectIdentifier=("integer-value", 1), presentValue=0),
        "heating": AnalogValueObjectCmd(objectIdentifier=("analog-value", 1), presentValue=19.0, covIncrement=0.1),
        "room": AnalogInputObject(objectIdentifier=("analog-input", 1), presentValue=21.5, covIncrement=0.1),
    }
    named["heating"].priorityArray[15] = PriorityValue(null=())
    for at in range(10, 50):
        thing = AnalogInputObject(objectIdentifier=("analog-input", at), presentValue=float(at), covIncrement=0.1)
        named[f"input-{at}"] = thing
    for name, thing in named.items():
        thing.objectName = name
        app.add_object(thing)

    def numbered(kind, name):
        try:
            return str(int(kind(name)))
        except ValueError:
            return "none"

    async def done(words):
        verb = words[0]
        if verb == "get":
            return value_of(named[words[1]])
        if verb == "set":
            thing = named[words[1]]
            kind = type(thing).get_property_type("presentValue")
            text = words[2] if len(words) > 2 else ""
            numbers = {"float": float, "double": float, "room": float, "string": str, "boolean": lambda of: int(of == "true")}
            thing.presentValue = kind(numbers.get(words[1], int)(text))
        elif verb == "at":
            found = named[words[1]].priorityArray[int(words[2]) - 1]
            return "null" if found.null is not None else str(found.real)
        elif verb == "put":
            named[words[1]].priorityArray[int(words[2]) - 1] = priority_value(words[3])
        elif verb == "reliability":
            named[words[1]].reliability = Reliability(words[2])
        elif verb == "subscriptions":
            return str(sum(len(detection.cov_subscriptions) for detection in app._cov_detections.values()))
        elif verb in ("forget", "starts"):
            told = {subscription.client_addr for of in app._cov_detections.values() for subscription in of.cov_subscriptions}
            for detection in list(app._cov_detections.values()):
                for subscription in list(detection.cov_subscriptions):
                    app.cancel_subscription(subscription)
                    subscription.cancel_subscription()
            for address in told if verb == "starts" else ():
                app.i_am(address=address)
        elif verb == "asked":
            return str(app.asked)
        elif verb == "reads":
            return str(app.reads)
        elif verb == "confirmed":
            return str(app.confirmed)
        elif verb == "changes":
            app.has_changes = words[1] == "yes"
        elif verb == "foreign":
            return str(len(app.bbmd.bbmdFDT))
        elif verb == "multiple":
            app.has_multiple = words[1] == "yes"
        elif verb == "room":
            app.room = int(words[1])
        elif verb == "object":
            return numbered(ObjectType, words[1])
        elif verb == "property":
            return numbered(PropertyIdentifier, words[1])
        return "ok"

    await asyncio.gather(*app.server._transport_tasks)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await done(line.rstrip("\n").split(" ", 2 if line.startswith("set ") else -1)), flush=True)


asyncio.run(main())
