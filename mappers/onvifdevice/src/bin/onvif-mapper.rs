//! The mapper of cameras that speak ONVIF.

use std::process::ExitCode;

use framework::Program;
use onvifdevice::{NAME, Onvif};

const PROGRAM: Program = Program {
    name: "onvif-mapper",
    version: framework::VERSION,
    about: "Asks, moves and listens to cameras that speak ONVIF, saves their pictures, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM
        .run(|config| Onvif::beside(&config.grpc_server.socket_path, config.common.allowed_targets.clone()))
}
