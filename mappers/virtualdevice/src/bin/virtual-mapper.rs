//! The mapper of virtual devices.

use std::process::ExitCode;

use framework::Program;
use virtualdevice::{NAME, VirtualDevice};

const PROGRAM: Program = Program {
    name: "virtual-mapper",
    version: framework::VERSION,
    about: "Serves devices that exist nowhere else, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|config| VirtualDevice::named(config.common.protocol.clone()))
}
