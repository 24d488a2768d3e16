//! Programs that are asked and answer.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What a program prints; an error holds what it said.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim())
}
