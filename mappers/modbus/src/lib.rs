//! The Modbus mapper, and a Modbus device to play with.
