//! Other processes and users of the machine at the DMI door.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use config::edge::DeviceTwin as Settings;
use contract::ids::PODS;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use fixture::callers::{register, report};
use fixture::{options, run, start, start_with_peers, until};
use serde_json::json;
use tokio::net::UnixStream;
use tonic::Code;

/// What a child of this test calls as, and what it was answered.
const CHILD: &str = "DMI_CHILD_SOCKET";

/// What the tests below start as another process.
#[test]
#[ignore = "not a test of its own"]
#[allow(clippy::exit, reason = "the code is its answer")]
fn child() {
    let socket = std::env::var_os(CHILD).unwrap();
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(async {
        let mut manager = DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()));
        report(&mut manager).await.map_or_else(|status| status.code(), |()| Code::Ok)
    });
    std::process::exit(code as i32);
}

/// Runs `child` and answers its code. `place` is told the child's number before it calls.
async fn as_another_process(socket: &Path, place: impl FnOnce(u32)) -> Code {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env(CHILD, socket);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    place(child.id());
    drop(child.stdin.take());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    Code::from_i32(status.code().unwrap())
}

/// The pods' cgroup of a hierarchy that can be written, and one below it that goes with the test.
struct Cgroup(Vec<std::path::PathBuf>);

impl Cgroup {
    fn make(pod: &str) -> Option<Self> {
        let sys = Path::new("/sys/fs/cgroup");
        let tops = if sys.join("cgroup.controllers").exists() {
            vec![sys.to_owned()]
        } else {
            vec![sys.join("memory"), sys.join("pids")]
        };
        let made: Vec<_> =
            tops.into_iter().map(|top| top.join("kubepods/besteffort").join(format!("pod{pod}/c"))).collect();
        made.iter().all(|path| std::fs::create_dir_all(path).is_ok()).then_some(Cgroup(made))
    }

    fn take(&self, process: u32) {
        for path in &self.0 {
            std::fs::write(path.join("cgroup.procs"), process.to_string()).unwrap();
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in &self.0 {
            // Those above are the other tests', too.
            for folder in path.ancestors().take(2) {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}

#[test]
fn a_process_is_the_pod_whose_cgroup_it_is_in() {
    let uid = format!("dmi-test-{}", std::process::id());
    let Some(cgroup) = Cgroup::make(&uid) else {
        assert!(!rustix::process::geteuid().is_root(), "root may make cgroups");
        return;
    };
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        let socket = folder.join(dmi::SOCKET_NAME);
        // The same user outside of pods is the mapper; in a pod he is not, known to the node or not.
        assert_eq!(as_another_process(&socket, |_| ()).await, Code::Ok);
        assert_eq!(as_another_process(&socket, |child| cgroup.take(child)).await, Code::PermissionDenied);
        let pod = json!({ "metadata": { "namespace": "mappers", "name": "evil", "uid": uid }, "spec": {} });
        node.put(PODS, "evil", &uid, pod).await;
        assert_eq!(as_another_process(&socket, |child| cgroup.take(child)).await, Code::PermissionDenied);
        node.stop().await;
    });
}

#[test]
fn another_local_user_reaches_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const GROUP: u32 = 54_321;
    // As a user: what a thread does is on the account of that thread.
    let as_user = |socket: std::path::PathBuf, group: u32| {
        let work = move || {
            use rustix::process::{Gid, Uid};
            use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
            set_thread_groups(&[Gid::from_raw(group)]).unwrap();
            set_thread_gid(Gid::from_raw(group)).unwrap();
            set_thread_uid(Uid::from_raw(65_534)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = socket.parent().unwrap().to_owned();
                UnixStream::connect(&socket).await.map_err(|error| error.kind())?;
                let mut manager = DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()));
                let codes = [
                    report(&mut manager).await.map_or_else(|status| status.code(), |()| Code::Ok),
                    register(&mut manager, &folder, "modbus")
                        .await
                        .map_or_else(|status| status.code(), |_| Code::Ok),
                    register(&mut manager, &folder, "opcua")
                        .await
                        .map_or_else(|status| status.code(), |_| Code::Ok),
                ];
                Ok::<_, std::io::ErrorKind>(codes)
            })
        };
        tokio::task::spawn_blocking(move || std::thread::spawn(work).join().unwrap())
    };
    run(|folder| async move {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let alone = folder.join("alone");
        let settings = Settings { dmi_sock_path: alone.clone(), ..Default::default() };
        let node =
            start_with_peers(&folder, options(), settings, Arc::new(edge_devicetwin::KernelPeerResolver));
        let listens = |socket: &Path| std::os::unix::net::UnixStream::connect(socket).is_ok();
        until(|| listens(&alone.join(dmi::SOCKET_NAME))).await;
        let refused = as_user(alone.join(dmi::SOCKET_NAME), GROUP).await.unwrap();
        assert_eq!(refused.unwrap_err(), std::io::ErrorKind::PermissionDenied);
        node.stop().await;

        let shared = folder.join("shared");
        let settings = Settings {
            dmi_sock_path: shared.clone(),
            dmi_sock_group: GROUP.to_string(),
            ..Default::default()
        };
        let node =
            start_with_peers(&folder, options(), settings, Arc::new(edge_devicetwin::KernelPeerResolver));
        node.pump("7").await;
        let socket = shared.join(dmi::SOCKET_NAME);
        // The file is there before it is the group's.
        let mode = || std::fs::metadata(&socket).map_or(0, |found| found.permissions().mode() & 0o777);
        until(|| listens(&socket) && mode() == 0o660).await;
        assert_eq!(std::fs::metadata(&shared).unwrap().permissions().mode() & 0o7777, 0o1770);
        let mut manager = DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()));
        register(&mut manager, &shared, "modbus").await.unwrap();
        assert!(as_user(socket.clone(), GROUP + 1).await.unwrap().is_err(), "not of the group");
        let codes = as_user(socket, GROUP).await.unwrap().unwrap();
        assert_eq!(
            codes,
            [Code::PermissionDenied, Code::PermissionDenied, Code::Ok],
            "its own protocol alone"
        );
        node.stop().await;
    });
}
