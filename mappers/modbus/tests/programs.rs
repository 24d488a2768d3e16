//! The programs as a user meets them: what they say at their ends.

#[path = "../../framework/tests/program/mod.rs"]
mod program;

#[test]
fn the_mapper_says_what_is_wrong_with_its_config_and_which_version_it_is() {
    program::is_a_mapper(env!("CARGO_BIN_EXE_modbus-mapper"));
}

#[test]
fn the_simulator_says_where_it_cannot_listen_and_which_version_it_is() {
    let simulator = env!("CARGO_BIN_EXE_modbus-simulator");
    // An address that no machine has (RFC 5737).
    program::fails_plainly(simulator, &["--listen", "192.0.2.1:5020"], &["192.0.2.1:5020", "--listen"]);
    program::says_its_version(simulator);
}
