//! Every setting of both daemons: defaults, units, validation.
