//! The Modbus mapper.

use std::process::ExitCode;

use framework::Program;
use modbus::{Modbus, NAME};

const PROGRAM: Program = Program {
    name: "modbus-mapper",
    version: framework::VERSION,
    about: "Reads and writes Modbus devices at TCP ports and serial lines, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|_| Modbus::default())
}
