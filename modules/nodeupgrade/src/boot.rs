//! What sees to it that an upgrade that a power cut ends is taken up: a line of edgecore's unit that runs before it. A unit that somebody
//! else has written has none, and gets one beside it. Not edgecore itself looks: the new one may be what does not hold, and the old one
//! may not know how.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::files;
use crate::journal::Launch;

/// Where a machine's own units are, and what is added to units.
pub(crate) const UNITS: &str = "/etc/systemd/system";
/// Behind the unit's own lines, and before what somebody adds who means it.
const NAME: &str = "50-keadm-take-up.conf";

/// Whether a unit runs the taking up for this `edgecore.yaml` before edgecore, by what systemd says of its `ExecStartPre`.
pub(crate) fn has_line(said: &str, config: &Path) -> bool {
    let commands = said.lines().flat_map(|line| line.split(" ; "));
    let mut program_is_there = false;
    commands.map(|part| part.trim().trim_start_matches("{ ")).any(|part| {
        if let Some(path) = part.strip_prefix("path=") {
            program_is_there = Path::new(path.trim()).exists();
        }
        let words = part.strip_prefix("argv[]=").unwrap_or_default();
        program_is_there
            && words.split_whitespace().any(|word| word == "--take-up")
            && words
                .split_whitespace()
                .any(|word| Path::new(word.strip_prefix("--config=").unwrap_or(word)) == config)
    })
}

/// What is added to a unit.
///
/// # Errors
/// When a path has letters that systemd takes for something else.
fn text(keadm: &Path, config: &Path) -> Result<String> {
    for path in [keadm, config] {
        let plain = |letter: char| !letter.is_control() && !"\"'\\$%;".contains(letter);
        if !path.is_absolute() || !path.to_str().is_some_and(|path| path.chars().all(plain)) {
            bail!("{} cannot stand in a unit of systemd: put it where the path is plain", path.display());
        }
    }
    Ok(format!(
        "# Written by `keadm upgrade edge`, as the unit has no such line: an upgrade that a power cut has ended is brought to the old or the\n\
         # new version before edgecore starts. Without one it does nothing. `keadm reset edge` removes this file.\n\
         [Service]\n\
         ExecStartPre=-\"{}\" upgrade edge --take-up --config \"{}\"\n",
        keadm.display(),
        config.display()
    ))
}

fn place(unit: &str, units: &Path) -> PathBuf {
    units.join(format!("{unit}.d")).join(NAME)
}

/// Adds the line to the unit, on the disk when this returns, and answers where it stands.
///
/// # Errors
/// When the folder of units does not take it.
pub(crate) fn add(unit: &str, units: &Path, keadm: &Path, config: &Path) -> Result<PathBuf> {
    let (place, text) = (place(unit, units), text(keadm, config)?);
    let folder = files::folder_of(&place);
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
    files::replace(&place, text.as_bytes(), 0o644)?;
    files::sync_folder_of(folder)?;
    Ok(place)
}

/// Removes the line that was added to the unit by which edgecore was started, and answers what was removed.
///
/// # Errors
/// When the folder of units does not let it go.
pub(crate) fn remove(launch: &Launch, units: &Path) -> Result<Option<PathBuf>> {
    let Launch::Unit(unit) = launch else { return Ok(None) };
    let place = place(unit, units);
    if !place.exists() {
        return Ok(None);
    }
    files::remove(&place)?;
    // With something else in it, it stays.
    drop(fs::remove_dir(files::folder_of(&place)));
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_line_if_it_is_of_this_node_and_of_a_program_that_is_there() {
        let said = |program: &str, config: &str| {
            format!(
                "{{ path=/bin/true ; argv[]=/bin/true ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}\n\
                 {{ path={program} ; argv[]={program} upgrade edge --take-up --config {config} ; ignore_errors=yes ; pid=0 }}\n"
            )
        };
        let config = Path::new("/etc/kubehive/edgecore.yaml");
        assert!(has_line(&said("/bin/true", "/etc/kubehive/edgecore.yaml"), config));
        for said in [
            "".to_owned(),
            said("/bin/true", "/etc/other/edgecore.yaml"),
            said("/nowhere/keadm", "/etc/kubehive/edgecore.yaml"),
            said("/bin/true", "/etc/kubehive/edgecore.yaml").replace("--take-up", "--status"),
        ] {
            assert!(!has_line(&said, config), "{said}");
        }
    }

    #[test]
    fn the_line_is_added_beside_the_unit_and_goes_again() {
        let units = tempfile::tempdir().unwrap();
        let (keadm, config) = (Path::new("/opt/a b/keadm"), Path::new("/etc/kubeedge/config/edgecore.yaml"));
        let launch = Launch::Unit("edgecore.service".to_owned());
        let place = units.path().join("edgecore.service.d/50-keadm-take-up.conf");
        for _ in 0..2 {
            assert_eq!(add("edgecore.service", units.path(), keadm, config).unwrap(), place);
        }
        let text = fs::read_to_string(&place).unwrap();
        let line = "\nExecStartPre=-\"/opt/a b/keadm\" upgrade edge --take-up --config \"/etc/kubeedge/config/edgecore.yaml\"\n";
        assert!(text.contains("[Service]\n") && text.contains(line), "{text}");
        assert_eq!(files::mode_of(&place).unwrap(), 0o644);
        assert_eq!(remove(&launch, units.path()).unwrap(), Some(place));
        assert!(!units.path().join("edgecore.service.d").exists());
        assert_eq!(remove(&launch, units.path()).unwrap(), None);
        for odd in ["/opt/%n/keadm", "/opt/\"/keadm", "/opt/$HOME/keadm", "/opt/\n[Unit]/keadm", "keadm"] {
            assert!(add("edgecore.service", units.path(), Path::new(odd), config).is_err(), "{odd:?}");
        }
        assert!(!units.path().join("edgecore.service.d").exists());
    }
}
