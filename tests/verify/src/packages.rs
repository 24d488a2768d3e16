//! The Debian packages that the tests on real parts need.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::say;
use crate::steps::{Failure, Outcome};

/// What the tests start beside our own binaries.
const NEEDED: [&str; 15] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "iproute2",
    "mosquitto",
    "mosquitto-clients",
    "openssh-server",
    "openssl",
    "opensc",
    "softhsm2",
    "busybox-static",
    "python3-venv",
    "redis-server",
    "mariadb-server",
];

/// Installs what is missing when run as root, and says what is missing when not.
pub(crate) fn install() -> Result<Outcome, Failure> {
    let listed = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Package}\\n"])
        .args(NEEDED)
        .stdin(Stdio::null())
        .output();
    // dpkg-query exits with 1 when it does not know one of the names: the list is still right.
    let listed = match listed {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            return Ok(Outcome::Skipped(format!(
                "dpkg-query does not run here ({error}), so what Debian calls {} is up to you",
                NEEDED.join(", ")
            )));
        }
    };
    let missing = missing(&listed);
    if missing.is_empty() {
        say("      every package is there");
        return Ok(Outcome::Passed);
    }
    let command = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        return Err(Failure {
            what: anyhow::anyhow!("missing Debian packages: {}", missing.join(", ")),
            cure: format!(
                "as root: apt-get update, then {command}; the container tests need root in any case"
            ),
        });
    }
    say(&format!("      missing, so installing: {}", missing.join(", ")));
    apt(&["update"])
        .and_then(|()| apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat()))
        .map(|()| Outcome::Passed)
        .map_err(|what| Failure { what, cure: format!("look at apt's own words above, then: {command}") })
}

/// The needed packages that dpkg's list does not show as installed.
fn missing(listed: &str) -> Vec<&'static str> {
    let installed: Vec<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("ii ")).map(str::trim).collect();
    NEEDED.into_iter().filter(|name| !installed.contains(name)).collect()
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        .args(["--quiet", "--quiet"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("apt-get did not start")?;
    if !status.success() {
        bail!("apt-get {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fully_installed_package_counts() {
        let listed = "ii  containerd\nrc  runc\niU  iptables\nii  iproute2\n";
        let missing = missing(listed);
        assert!(!missing.contains(&"containerd") && !missing.contains(&"iproute2"));
        assert!(
            missing.contains(&"runc") && missing.contains(&"iptables") && missing.contains(&"busybox-static")
        );
    }

    #[test]
    fn nothing_listed_means_that_all_are_missing() {
        assert_eq!(missing(""), NEEDED);
    }
}
