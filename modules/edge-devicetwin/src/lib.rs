//! Device twins, and the DMI server that mappers register at.
