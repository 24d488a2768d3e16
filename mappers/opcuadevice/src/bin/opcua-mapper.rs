//! The mapper of devices that are OPC UA servers.

use std::process::ExitCode;

use framework::Program;
use opcuadevice::{LIBRARIES, NAME, OpcUa};

const PROGRAM: Program = Program {
    name: "opcua-mapper",
    version: framework::VERSION,
    about: "Reads, writes and calls OPC UA servers, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &LIBRARIES,
};

fn main() -> ExitCode {
    PROGRAM.run(|config| OpcUa::beside(&config.grpc_server.socket_path))
}
