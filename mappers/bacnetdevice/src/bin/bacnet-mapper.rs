//! The mapper of BACnet/IP devices.

use std::process::ExitCode;

use bacnetdevice::{Bacnet, NAME};
use framework::Program;

const PROGRAM: Program = Program {
    name: "bacnet-mapper",
    version: framework::VERSION,
    about: "Reads and writes BACnet/IP devices, and tells edgecore about them over its device mapper interface",
    protocol: NAME,
    quiet: &[],
};

fn main() -> ExitCode {
    PROGRAM.run(|_| Bacnet::default())
}
