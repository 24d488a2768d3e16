//! The device mapper interface, v1beta1.
