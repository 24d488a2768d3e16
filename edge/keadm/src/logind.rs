//! What edgecore has written for systemd's logind, which waits with the machine's end for the node's pods (`shutdownGracePeriod`): it goes
//! with the node.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use beehive::Env;

/// Where logind reads how long it may be kept waiting, beside its own file.
const FOLDER: &str = "/etc/systemd/logind.conf.d";
/// The file of edgecore's there.
const FILE: &str = "99-kubehive.conf";
/// 4 KiB of it: what edgecore writes is two lines.
const FILE_MAX: u64 = 4 << 10;
/// Has logind read its configuration again, as edgecore has it do.
const RELOAD: [&str; 3] = ["kill", "--signal=HUP", "systemd-logind.service"];

/// Removes it, and has logind read its configuration again. Says what it did; what somebody has changed stays.
///
/// # Errors
/// When it cannot be removed.
pub(crate) async fn forget(env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let Some(path) = remove(Path::new(FOLDER), say)? else { return Ok(()) };
    say(format!("removed {}", path.display()));
    if nodeupgrade::has_systemd()
        && let Err(error) = nodeupgrade::systemctl(&RELOAD, env).await
    {
        say(format!(
            "logind goes on waiting with the machine's end as before ({error:#}): `systemctl {}`, or it ends with the next boot",
            RELOAD.join(" ")
        ));
    }
    Ok(())
}

/// Answers its path where it was there.
fn remove(folder: &Path, say: &mut dyn FnMut(String)) -> Result<Option<PathBuf>> {
    let path = folder.join(FILE);
    let mut text = String::new();
    let read = match File::open(&path) {
        Ok(file) => file.take(FILE_MAX).read_to_string(&mut text),
        Err(error) => Err(error),
    };
    match read {
        Ok(_) if is_ours(&text) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(_) | Err(_) => {
            say(format!(
                "{} stays, since it is not as edgecore has written it: remove it by hand if nobody else needs it",
                path.display()
            ));
            return Ok(None);
        }
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(Some(path))
}

/// Whether edgecore has written this, and nobody since.
fn is_ours(text: &str) -> bool {
    let seconds = text.strip_prefix("[Login]\nInhibitDelayMaxSec=").and_then(|rest| rest.strip_suffix('\n'));
    seconds.is_some_and(|seconds| !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file is a real one.
    #[test]
    fn what_edgecore_wrote_goes_and_what_somebody_has_changed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let look = || {
            let mut said = Vec::new();
            let removed = remove(folder.path(), &mut |line| said.push(line)).unwrap();
            (removed, said.join("\n"))
        };
        assert_eq!(look(), (None, String::new()), "there is none");
        fs::write(&path, "[Login]\nInhibitDelayMaxSec=45\n").unwrap();
        assert_eq!(look(), (Some(path.clone()), String::new()));
        assert!(!path.exists());
        for changed in [
            "[Login]\nInhibitDelayMaxSec=45\nHandleLidSwitch=ignore\n",
            "[Login]\nInhibitDelayMaxSec=5min\n",
            "[Login]\nInhibitDelayMaxSec=\n",
            "",
        ] {
            fs::write(&path, changed).unwrap();
            let (removed, said) = look();
            assert!(removed.is_none() && path.exists(), "{changed}");
            assert!(said.contains("stays") && said.contains(FILE), "{said}");
        }
    }
}
