"""A CANopen node that we did not write, driven over standard input: canopen's LocalNode on python-can's client of a socketcand.

The arguments are the port of that socketcand and the node's number. Every line of input is a command, answered by one line:
  get NAME        -> the value of an object
  set NAME VALUE  -> ok
  send ID HEX     -> ok; a frame on the bus
  last ID         -> the bytes of the last frame with that id, or none
"""

import sys

import can
import canopen
from canopen.objectdictionary import ODVariable, datatypes

OBJECTS = {
    "type": (0x1000, datatypes.UNSIGNED32, "ro", 0x191),
    "int": (0x2000, datatypes.UNSIGNED64, "rw", 0),
    "float": (0x2001, datatypes.REAL32, "rw", 0.0),
    "double": (0x2002, datatypes.REAL64, "rw", 0.0),
    "string": (0x2003, datatypes.VISIBLE_STRING, "rw", ""),
    "boolean": (0x2004, datatypes.BOOLEAN, "rw", False),
    "seen": (0x2005, datatypes.UNSIGNED16, "ro", 0),
    "level": (0x2006, datatypes.INTEGER16, "rw", 0),
    "secret": (0x2007, datatypes.UNSIGNED8, "wo", 0),
}

dictionary = canopen.ObjectDictionary()
for name, (index, kind, access, _) in OBJECTS.items():
    variable = ODVariable(name, index, 0)
    variable.data_type = kind
    variable.access_type = access
    dictionary.add_object(variable)

last = {}


class Listener(can.Listener):
    def on_message_received(self, message):
        last[message.arbitration_id] = bytes(message.data).hex()


network = canopen.Network()
network.listeners.append(Listener())
network.connect(interface="socketcand", host="127.0.0.1", port=int(sys.argv[1]), channel="can0")
node = network.create_node(int(sys.argv[2]), dictionary)


def put(name, value):
    index = OBJECTS[name][0]
    node.set_data(index, 0, dictionary[index].encode_raw(value))


def get(name):
    index = OBJECTS[name][0]
    return dictionary[index].decode_raw(node.get_data(index, 0))


for name, (_, _, _, value) in OBJECTS.items():
    put(name, value)
print("ready", flush=True)
for line in sys.stdin:
    verb, name, *rest = line.rstrip("\n").split(" ", 2)
    if verb == "get":
        print(get(name), flush=True)
    elif verb == "last":
        print(last.get(int(name, 16), "none"), flush=True)
    else:
        if verb == "send":
            network.send_message(int(name, 16), bytes.fromhex(rest[0]))
        else:
            old = get(name)
            put(name, rest[0] == "true" if isinstance(old, bool) else type(old)(rest[0]))
        print("ok", flush=True)
