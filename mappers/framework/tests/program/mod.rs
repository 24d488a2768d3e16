//! A mapper's program as a user meets it: what it says at its ends.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

/// Runs a program to its end, with its outputs in pipes and everything on that makes errors longer; what it said as well.
pub(crate) fn run(program: &str, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_BACKTRACE", "1").env_remove("NO_COLOR").env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

/// A program that cannot go on says why with these words, in lines without colours and without a backtrace.
pub(crate) fn fails_plainly(program: &str, arguments: &[&str], words: &[&str]) {
    let (output, said) = run(program, arguments);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ERROR") && words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains('\u{1b}'), "colours in a pipe: {said:?}");
    assert!(!said.to_lowercase().contains("backtrace"), "{said}");
}

/// It says which version it is, by its own name.
pub(crate) fn says_its_version(program: &str) {
    let (output, said) = run(program, &["--version"]);
    assert!(output.status.success(), "{said}");
    let name = program.rsplit('/').next().unwrap();
    let wanted = format!("{name} {}", framework::VERSION);
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), wanted);
}

/// A mapper: what is wrong with its config, and which version it is.
pub(crate) fn is_a_mapper(program: &str) {
    let nowhere = "/nonexistent/config.yaml";
    fails_plainly(program, &["--config-file", nowhere], &[nowhere, "--config-file"]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    let misspelt = "grpc_server: {socket_path: /tmp/m.sock, sokcet: 1}\ncommon: {name: m}\n";
    std::fs::write(&config, misspelt).unwrap();
    fails_plainly(program, &["--config-file", config.to_str().unwrap()], &["grpc_server.sokcet"]);
    let (output, said) = run(program, &["--verbose"]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unexpected argument"), "{said}");
    let (output, _) = run(program, &["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("edgecore") && help.contains("--config-file") && help.contains("--v"), "{help}");
    says_its_version(program);
}
