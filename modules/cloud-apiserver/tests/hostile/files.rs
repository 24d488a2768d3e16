//! Another user of the same host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use beehive::Env;
use cloud_apiserver::{StartError, start};

use super::settings;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Everything in the folder is its owner's alone, while the server runs.
fn closed(folder: &Path) -> Vec<String> {
    assert_eq!(mode(folder), 0o700);
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names
        .map(|path| {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            path.file_name().unwrap().to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn nobody_else_reads_the_secrets_also_of_a_folder_that_was_open() {
    actix_rt::System::new().block_on(async {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        // As an administrator's mkdir makes it.
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let running = start(settings(folder.clone()), Env::real()).await.unwrap();
        let names = closed(&folder);
        for name in
            ["api.db", "api.db-wal", "api.db-shm", "ca.key", "sa.key", "admin.token", "admin.kubeconfig"]
        {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
        running.stop(Duration::from_secs(5)).await;
        for name in ["api.db", "ca.key", "admin.token"] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let running = start(settings(folder.clone()), Env::real()).await.unwrap();
        closed(&folder);
        running.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_folder_that_others_can_exchange_is_not_used() {
    actix_rt::System::new().block_on(async {
        let temp = tempfile::tempdir().unwrap();
        let open = temp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = start(settings(open.join("data")), Env::real()).await.err().unwrap();
        assert!(matches!(refused, StartError::Folder(_)), "{refused}");
        assert!(refused.to_string().contains("chmod go-w"), "{refused}");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        let refused = start(settings(link), Env::real()).await.err().unwrap();
        assert!(refused.to_string().contains("a link"), "{refused}");
        assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    });
}

#[test]
fn a_second_server_on_the_folder_is_refused_and_changes_nothing_in_it() {
    actix_rt::System::new().block_on(async {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        let first = start(settings(folder.clone()), Env::real()).await.unwrap();
        let kubeconfig = || fs::read_to_string(folder.join("admin.kubeconfig")).unwrap();
        let before = kubeconfig();
        let refused = start(settings(folder.clone()), Env::real()).await.err().expect("both would run");
        assert!(matches!(refused, StartError::Folder(_)), "{refused}");
        assert!(refused.to_string().contains("is in use by another cloudcore"), "{refused}");
        assert_eq!(kubeconfig(), before);
        first.stop(Duration::from_secs(10)).await;
        // One that cannot have its port leaves the kubeconfig of the one before as it was.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let refused =
            start(cloud_apiserver::Settings { listen, ..settings(folder.clone()) }, Env::real()).await;
        assert!(matches!(refused.err().expect("the port is taken"), StartError::Listen { .. }));
        assert_eq!(kubeconfig(), before);
        start(settings(folder.clone()), Env::real()).await.unwrap().stop(Duration::from_secs(10)).await;
    });
}
