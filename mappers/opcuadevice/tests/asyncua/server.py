"""An OPC UA server made of asyncua, driven over standard input.

Arguments: PORT FOLDER SECURITY, where SECURITY is `none`, or `secure` for certificates, which it makes in FOLDER, and users
(`operator` with the password `open sesame`); or `none` and then NAME=COUNT, for nodes that are filled from the start. The first line of the output is `ready`. Then every line of input is a command,
answered by one line:
  on, off                  -> ok        starts and stops it; what nodes have stays, sessions do not
  get NAME                 -> its value
  set NAME VALUE           -> ok
  fill NAME COUNT VALUE    -> ok        a text of so many letters, or an array of so many numbers
  status NAME CODE         -> ok        the node has this status, and keeps its value
  remake NAME VALUE        -> ok        the node is deleted, and made anew with this value
  trust FILE               -> ok        clients with this certificate are taken, and from then on no others
  move                     -> ok        at the next start the namespace has another index
  forget                   -> ok        subscriptions are gone, without a word
  sessions, subscriptions  -> how many there are
  monitored                -> how many items all subscriptions have
  calls                    -> what the methods were called with
"""

import asyncio
import datetime
import json
import logging
import sys
from pathlib import Path

from asyncua import Server, ua, uamethod
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.server.user_managers import User, UserRole
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

NAMESPACE = "urn:kubehive:plant"
TYPES = ua.VariantType
NODES = {
    "int": (TYPES.UInt64, 0, True),
    "float": (TYPES.Float, 0.0, True),
    "double": (TYPES.Double, 0.0, True),
    "string": (TYPES.String, "", True),
    "boolean": (TYPES.Boolean, False, True),
    "seen": (TYPES.Int32, 0, False),
    "level": (TYPES.Int16, 0, True),
    "sbyte": (TYPES.SByte, 0, True),
    "byte": (TYPES.Byte, 0, True),
    "int64": (TYPES.Int64, 0, True),
    "time": (TYPES.DateTime, datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc), True),
    "text": (TYPES.LocalizedText, ua.LocalizedText("idle"), True),
    "array": (TYPES.Int32, [1, 2, 3], True),
    "locked": (TYPES.Int32, 5, False),
    "word": (TYPES.UInt16, 0, True),
    "letters": (TYPES.String, "", True),
    "series": (TYPES.Double, [0.5], True),
}
PARSERS = {TYPES.Float: float, TYPES.Double: float, TYPES.String: str, TYPES.Boolean: lambda text: text == "true"}


def filled(name, count, value):
    return value * int(count) if NODES[name][0] == TYPES.String else [float(value)] * int(count)


class Users:
    def get_user(self, iserver, username=None, password=None, certificate=None):
        if username is None:
            return User(role=UserRole.User)
        if username == "operator" and password == "open sesame":
            return User(role=UserRole.User)
        return None


class Device:
    def __init__(self, port, folder, security):
        self.port, self.folder, self.is_secure = port, Path(folder), security == "secure"
        self.values = {name: value for name, (_, value, _) in NODES.items()}
        for name, _, count in (one.partition("=") for one in sys.argv[4:]):
            self.values[name] = filled(name, count, "1")
        self.calls, self.trusted, self.moved, self.server = [], None, 0, None

    async def on(self):
        self.server = server = Server(user_manager=Users() if self.is_secure else None)
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/plant")
        policies = [ua.SecurityPolicyType.NoSecurity]
        if self.is_secure:
            policies = [policy for policy in ua.SecurityPolicyType if policy.name.startswith(("Basic256Sha", "Aes"))]
            await self.make_certificate(server)
        server.set_security_policy(policies)
        server.set_certificate_validator(self.is_trusted)
        for at in range(self.moved):
            await server.register_namespace(f"urn:other:{at}")
        index = await server.register_namespace(NAMESPACE)
        self.plant = plant = await server.nodes.objects.add_object(ua.NodeId("plant", index), "plant")
        self.nodes = {}
        for name, (kind, _, is_writable) in NODES.items():
            value = ua.Variant(self.values[name], kind)
            node = await plant.add_variable(ua.NodeId(name, index), name, value)
            if is_writable:
                await node.set_writable()
            self.nodes[name] = node
        empty = await plant.add_variable(ua.NodeId("empty", index), "empty", ua.Variant(None, TYPES.Null), datatype=ua.NodeId(TYPES.Int32.value))
        await empty.set_writable()
        self.nodes["empty"] = empty
        status = ua.Variant(ua.BuildInfo(), TYPES.ExtensionObject)
        await plant.add_variable(ua.NodeId("structure", index), "structure", status)
        await plant.add_method(ua.NodeId("start", index), "start", self.start, [argument("speed", TYPES.UInt16)], [TYPES.String])
        await plant.add_method(ua.NodeId("stop", index), "stop", self.stop, [], [])
        both = [argument("x", TYPES.Double), argument("name", TYPES.String)]
        await plant.add_method(ua.NodeId("go", index), "go", self.go, both, [TYPES.Int32])
        await server.start()

    async def off(self):
        self.values = {name: await self.nodes[name].read_value() for name in NODES}
        await self.server.stop()
        self.server = None

    @uamethod
    def start(self, parent, speed):
        self.calls.append(["start", speed])
        if speed > 1000:
            return ua.StatusCode(ua.StatusCodes.BadOutOfRange)
        return f"runs at {speed}"

    @uamethod
    def stop(self, parent):
        self.calls.append(["stop"])

    @uamethod
    def go(self, parent, x, name):
        self.calls.append(["go", x, name])
        return 7

    async def make_certificate(self, server):
        await server.set_application_uri("urn:kubehive:asyncua")
        key, certificate = self.folder / "server.pem", self.folder / "server.der"
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        names = {"countryName": "XX", "organizationName": "asyncua"}
        await setup_self_signed_certificate(key, certificate, "urn:kubehive:asyncua", "plant", usage, names)
        await server.load_certificate(certificate)
        await server.load_private_key(key)

    async def is_trusted(self, certificate, description):
        if self.trusted is not None and certificate.public_bytes(Encoding.DER) != self.trusted:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadCertificateUntrusted)

    async def answer(self, line):
        verb, _, rest = line.partition(" ")
        if verb in ("on", "off"):
            await getattr(self, verb)()
        elif verb == "get":
            value = await self.nodes[rest].read_value()
            return value if isinstance(value, str) else json.dumps(value, default=shown)
        elif verb == "set":
            name, _, text = rest.partition(" ")
            kind = NODES[name][0]
            await self.nodes[name].write_value(ua.Variant(PARSERS.get(kind, int)(text), kind))
        elif verb == "fill":
            name, count, value = rest.split()
            await self.nodes[name].write_value(ua.Variant(filled(name, count, value), NODES[name][0]))
        elif verb == "status":
            name, code = rest.split()
            kept = ua.Variant(self.values[name], NODES[name][0])
            value = ua.DataValue(kept, ua.StatusCode(getattr(ua.StatusCodes, code)))
            await self.server.write_attribute_value(self.nodes[name].nodeid, value)
        elif verb == "remake":
            name, _, text = rest.partition(" ")
            kind, old = NODES[name][0], self.nodes[name]
            await self.server.delete_nodes([old])
            value = ua.Variant(PARSERS.get(kind, int)(text), kind)
            self.nodes[name] = await self.plant.add_variable(old.nodeid, name, value)
        elif verb == "trust":
            self.trusted = Path(rest).read_bytes()
        elif verb == "move":
            self.moved += 1
        elif verb == "forget":
            self.server.iserver.subscription_service.subscriptions.clear()
        elif verb == "subscriptions":
            return str(len(self.server.iserver.subscription_service.subscriptions))
        elif verb == "monitored":
            subscriptions = self.server.iserver.subscription_service.subscriptions.values()
            return str(sum(len(one.monitored_item_srv._monitored_items) for one in subscriptions))
        elif verb == "sessions":
            return str(len([client for client in self.server.bserver.clients if client.processor.session]))
        elif verb == "calls":
            return json.dumps(self.calls)
        else:
            raise ValueError(line)
        return "ok"


def shown(value):
    return value.isoformat() if isinstance(value, datetime.datetime) else value.Text


def argument(name, kind):
    made = ua.Argument()
    made.Name, made.DataType, made.ValueRank = name, ua.NodeId(kind.value), -1
    return made


async def main():
    logging.disable(logging.CRITICAL)
    device = Device(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    await device.on()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await device.answer(line.rstrip("\n")), flush=True)


asyncio.run(main())
