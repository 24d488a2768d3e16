//! The mapper of devices on a CAN bus.

use std::process::ExitCode;

use candevice::{Can, NAME};
use framework::Program;

const PROGRAM: Program = Program {
    name: "can-mapper",
    version: framework::VERSION,
    about: "Reads and writes devices on a CAN bus, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|_| Can::default())
}
