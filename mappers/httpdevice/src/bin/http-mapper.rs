//! The mapper of devices that speak HTTP.

use std::process::ExitCode;

use framework::Program;
use httpdevice::{HttpDevice, NAME};

const PROGRAM: Program = Program {
    name: "http-mapper",
    version: framework::VERSION,
    about: "Reads and writes devices that speak HTTP and JSON, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|config| HttpDevice::new(config.common.allowed_targets.clone()))
}
