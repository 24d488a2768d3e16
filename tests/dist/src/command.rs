//! Programs that are asked something.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What the command prints.
///
/// # Errors
/// When it does not start or ends with another code than 0: with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{shown} does not start"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no text"))
}
