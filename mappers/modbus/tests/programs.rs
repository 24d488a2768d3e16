//! The programs as a user meets them: what they say at their ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

const PROGRAMS: [&str; 2] = [env!("CARGO_BIN_EXE_modbus-mapper"), env!("CARGO_BIN_EXE_modbus-simulator")];

/// Runs a program with its outputs in pipes and everything on that makes errors longer.
fn run(program: &str, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_BACKTRACE", "1").env_remove("NO_COLOR").env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

#[test]
fn a_pipe_gets_lines_without_colours_and_a_user_no_backtrace() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "grpc_server: {socket_path: /tmp/m.sock, sokcet: 1}\ncommon: {name: m}\n")
        .unwrap();
    let wrong = ["--config-file", config.to_str().unwrap()];
    // An address that no machine has (RFC 5737).
    let nowhere = ["--listen", "192.0.2.1:5020"];
    for (program, arguments, cause) in
        [(PROGRAMS[0], wrong, "grpc_server.sokcet"), (PROGRAMS[1], nowhere, "--listen")]
    {
        let (output, said) = run(program, &arguments);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(cause) && said.contains("ERROR"), "{said}");
        assert!(!said.contains('\u{1b}'), "colours in a pipe: {said:?}");
        assert!(!said.to_lowercase().contains("backtrace"), "{said}");
    }
}

#[test]
fn a_program_says_its_version() {
    for program in PROGRAMS {
        let (output, _) = run(program, &["--version"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.trim_end().ends_with(env!("CARGO_PKG_VERSION")), "{said}");
    }
}
