//! The program as a user meets it: what it says at its ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_virtual-mapper");

#[test]
fn it_says_what_is_wrong_with_its_config_and_which_version_it_is() {
    let output = Command::new(PROGRAM).args(["--config-file", "/nonexistent/config.yaml"]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nonexistent/config.yaml") && said.contains("--config-file"), "{said}");
    assert!(!said.contains("backtrace"), "{said}");
    let output = Command::new(PROGRAM).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("virtual-mapper "));
}
