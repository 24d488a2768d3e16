//! Everything a mapper is except its protocol.
