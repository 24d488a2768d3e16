//! Devices and device models down to the edge, twins and states up.
