//! The program as a user meets it: what it says at its ends.

#[path = "../../framework/tests/program/mod.rs"]
mod program;

#[test]
fn it_says_what_is_wrong_with_its_config_and_which_version_it_is() {
    program::is_a_mapper(env!("CARGO_BIN_EXE_onvif-mapper"));
}
