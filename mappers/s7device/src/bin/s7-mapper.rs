//! The mapper of Siemens S7 PLCs.

use std::process::ExitCode;

use framework::Program;
use s7device::{NAME, S7};

const PROGRAM: Program = Program {
    name: "s7-mapper",
    version: framework::VERSION,
    about: "Reads and writes Siemens S7 PLCs, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|_| S7::default())
}
