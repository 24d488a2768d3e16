//! What decides which program root runs and which files it copies: nobody else can exchange it. By the rules of edgecore's own start
//! (`modules/trustedfiles`), so that no upgrade goes by settings with which edgecore would not start.

use std::path::Path;

use anyhow::{Result, bail};
use config::edge::EdgeCore;
use trustedfiles::{ALL, TrustCheck, TrustedEntry, UntrustedFile, WRITE};

use crate::files;

/// Reads the node's settings, once nobody else can exchange them, and looks at its store's files as edgecore does. What is ours and too
/// open is closed, and said.
///
/// # Errors
/// When the settings cannot be read, or they or the store are another user's to change, which names the file or folder and the cure.
pub fn settings(config: &Path, say: &mut dyn FnMut(String)) -> Result<EdgeCore> {
    // What mappers may write to is closed to nobody. A file that lies there may name another folder as theirs.
    let usual = EdgeCore::default();
    unreached(&usual, config)?;
    unreached(&EdgeCore::load(config)?, config)?;
    let shared = usual.modules.device_twin.dmi_sock_path;
    let of_config =
        TrustedEntry { key: "--config", path: config.to_owned(), closed: WRITE, may_be_link: true };
    closed(&[of_config], &shared, say)?;
    // Until now somebody else may have had another one there.
    let settings = EdgeCore::load(config)?;
    let store = &settings.database.data_source;
    let of_store = ["", "-wal", "-shm", ".key", ".lock"].map(|suffix| TrustedEntry {
        key: "database.dataSource",
        path: files::beside(store, suffix),
        closed: ALL,
        may_be_link: false,
    });
    closed(&of_store, &settings.modules.device_twin.dmi_sock_path, say)?;
    Ok(settings)
}

/// Refuses a file that mappers could have put there, by these settings.
fn unreached(settings: &EdgeCore, config: &Path) -> Result<()> {
    match settings.reached(config) {
        Some(defect) => bail!("`{}` {}", defect.key, defect.what),
        None => Ok(()),
    }
}

fn closed(entries: &[TrustedEntry], shared: &Path, say: &mut dyn FnMut(String)) -> Result<(), UntrustedFile> {
    let mut check = TrustCheck::closing(Some(shared));
    let outcome = entries.iter().try_for_each(|entry| check.path(entry));
    for repaired in check.into_repaired() {
        say(format!("other users of this machine could reach the node's own files: {repaired}"));
    }
    outcome
}

/// Looks whether nobody else can exchange a program that root is to run or to copy. Nothing is closed: who could have written to it may
/// have.
///
/// # Errors
/// When somebody can, with the file or folder and the cure.
pub(crate) fn program(path: &Path) -> Result<()> {
    let entry =
        TrustedEntry { key: "edgecore's program", path: path.to_owned(), closed: WRITE, may_be_link: true };
    Ok(TrustCheck::refusing().path(&entry)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    const NOBODY: u32 = 65534;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn settings_and_a_store_of_another_user_are_refused_as_by_edgecore() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["etc", "db"] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        }
        let (config, store) = (at("etc/edgecore.yaml"), at("db/edgecore.db"));
        fs::write(&config, format!("database:\n  dataSource: {}\n", store.display())).unwrap();
        fs::write(&store, "").unwrap();
        let mut said = Vec::new();
        let mut read = || settings(&config, &mut |line| said.push(line));
        fs::set_permissions(&config, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read().unwrap().database.data_source, store);
        assert_eq!((mode_of(&config), mode_of(&store)), (0o644, 0o600), "closed, as by edgecore");
        assert_eq!(said.len(), 2, "{said:?}");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let read = || settings(&config, &mut |_| {});
        for path in [&config, &at("etc"), &store, &at("db")] {
            chown(path, Some(NOBODY), None).unwrap();
            let error = format!("{:#}", read().unwrap_err());
            assert!(error.contains(&format!("chown root: {}", path.display())), "{error}");
            chown(path, Some(0), None).unwrap();
        }
        read().unwrap();
        fs::rename(&store, at("db/other")).unwrap();
        std::os::unix::fs::symlink(at("db/other"), &store).unwrap();
        let error = format!("{:#}", read().unwrap_err());
        assert!(error.contains("is a link"), "{error}");
    }

    #[test]
    fn settings_in_the_folder_of_mappers_are_refused_whatever_folder_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join("usual");
        std::os::unix::fs::symlink(EdgeCore::default().modules.device_twin.dmi_sock_path, &usual).unwrap();
        let theirs = folder.path().join("edgecore.yaml");
        fs::write(&theirs, format!("modules: {{deviceTwin: {{dmiSockPath: {}/}}}}", folder.path().display()))
            .unwrap();
        for config in [usual.join("config/edgecore.yaml"), theirs] {
            let error = format!("{:#}", settings(&config, &mut |_| {}).unwrap_err());
            assert!(error.contains("is named by a path through it"), "{error}");
        }
    }
}
