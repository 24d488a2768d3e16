//! The MQTT broker of a node: rumqttd's router behind our own listener.
