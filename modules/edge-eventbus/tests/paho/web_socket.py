"""Publishes and subscribes over WebSocket with Eclipse Paho: PORT, and the CA's file for TLS or nothing.

Prints a line for each version of MQTT and QoS that came back as it was sent.
"""

import sys
import threading

import paho.mqtt.client as mqtt

PORT = int(sys.argv[1])
CA = sys.argv[2] if len(sys.argv) > 2 else None
# Larger than one frame that the broker writes.
PAYLOAD = bytes(range(256)) * 800


def talk(version, name):
    came = {}
    done = threading.Event()
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id="paho-" + name,
        protocol=version,
        transport="websockets",
    )
    client.ws_set_options(path="/mqtt")
    if CA:
        client.tls_set(ca_certs=CA)

    def connected(client, _userdata, _flags, reason, _properties):
        assert not reason.is_failure, reason
        client.subscribe("t/#", 2)

    def subscribed(client, _userdata, _mid, reasons, _properties):
        assert [reason.value for reason in reasons] == [2], reasons
        for qos in (0, 1, 2):
            client.publish("t/%d" % qos, PAYLOAD, qos)

    def heard(_client, _userdata, message):
        came[message.topic] = (message.qos, message.payload == PAYLOAD)
        if len(came) == 3:
            done.set()

    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, heard
    client.connect("127.0.0.1", PORT, keepalive=5)
    client.loop_start()
    assert done.wait(20), came
    client.disconnect()
    client.loop_stop()
    for qos in (0, 1, 2):
        assert came["t/%d" % qos] == (qos, True), came
        print(name, qos)


talk(mqtt.MQTTv311, "3.1.1")
talk(mqtt.MQTTv5, "5")
