//! The mapper of devices that speak MQTT.

use std::process::ExitCode;

use framework::Program;
use mqttdevice::{MqttDevice, NAME};

const PROGRAM: Program = Program {
    name: "mqtt-mapper",
    version: framework::VERSION,
    about: "Reads and writes devices that speak MQTT, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|_| MqttDevice)
}
