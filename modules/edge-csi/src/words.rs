//! What is said of drivers and volumes in the kubelet's words.

use std::path::Path;

use contract::csi::CsiFault;
use csi::CallError;

/// Why a mount was not gone on with.
pub(crate) const NEEDLESS: &str = "nobody waits for the volume any more";

pub(crate) fn fault(step: &'static str, reason: impl ToString) -> CsiFault {
    CsiFault { step, reason: reason.to_string() }
}

pub(crate) fn absent(driver: &str) -> String {
    format!("driver name {driver} not found in the list of registered CSI drivers")
}

pub(crate) fn text(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is no text", path.display()))
}

/// A volume that the driver does not know is not mounted.
pub(crate) fn gone_is_fine(error: CallError) -> Result<(), CallError> {
    if error.code() == "NotFound" { Ok(()) } else { Err(error) }
}
