//! Attacks on the DMI door: callers that are not who they would like to be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use config::edge::{DeviceTwin as Settings, MapperRule};
use contract::devicetwin::DmiCaller;
use contract::ids::{DEVICES, PODS};
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use edge_devicetwin::Peers;
use serde_json::json;
use stage::{
    Mapper, Node, SOON, called, options, registration, run, start, start_told_by, status_report, until,
};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Channel;
use tonic::{Code, Status};

type Manager = DeviceManagerServiceClient<Channel>;

/// Whoever connects is who the test says.
#[derive(Default)]
struct Face(Mutex<Option<DmiCaller>>);

impl Face {
    fn put_on(&self, pod: Option<&str>, uid: u32, process: &str) {
        let caller = DmiCaller { pod: pod.map(str::to_owned), uid, process: process.to_owned() };
        *self.0.lock().unwrap() = Some(caller);
    }
}

impl Peers for Face {
    fn identify(&self, _: &UnixStream) -> Result<DmiCaller, String> {
        self.0.lock().unwrap().clone().ok_or_else(|| "nobody".to_owned())
    }
    fn runs(&self, process: &str) -> bool {
        process == "alive"
    }
}

struct Masked {
    node: Node,
    face: Arc<Face>,
}

impl Masked {
    async fn start(folder: &Path, mappers: Vec<MapperRule>) -> Self {
        let face = Arc::new(Face::default());
        let peers: Arc<dyn Peers> = Arc::<Face>::clone(&face);
        let settings = Settings { dmi_sock_path: folder.to_owned(), mappers, ..Default::default() };
        let node = start_told_by(folder, options(), settings, peers);
        node.pump("7").await;
        Masked { node, face }
    }

    /// A mapper's pod, of a DaemonSet with that name.
    async fn pod(&self, uid: &str, set: &str) {
        let pod = json!({ "metadata": { "namespace": "mappers", "name": format!("{set}-{uid}"), "uid": uid,
                "ownerReferences": [{ "kind": "DaemonSet", "name": set, "controller": true }] },
            "spec": { "serviceAccountName": set } });
        self.node.put(PODS, &format!("{set}-{uid}"), uid, pod).await;
    }

    /// A client in a pod.
    async fn in_pod(&self, uid: &str) -> Manager {
        let manager = self.node.manager().await;
        self.face.put_on(Some(uid), 0, "alive");
        manager
    }
}

async fn register(manager: &mut Manager, folder: &Path, protocol: &str) -> Result<usize, Status> {
    let mut request = registration(folder, true);
    protocol.clone_into(&mut request.mapper.as_mut().unwrap().protocol);
    manager.mapper_register(request).await.map(|answer| answer.into_inner().device_list.len())
}

async fn report(manager: &mut Manager) -> Result<(), Status> {
    manager.report_device_status(status_report("", "1")).await.map(drop)
}

async fn state(manager: &mut Manager, namespace: &str, name: &str) -> Result<(), Status> {
    let request = pb::ReportDeviceStatesRequest {
        device_namespace: namespace.to_owned(),
        device_name: name.to_owned(),
        state: "online".to_owned(),
    };
    manager.report_device_states(request).await.map(drop)
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    status.message().to_owned()
}

#[test]
fn a_protocol_is_its_mappers_until_that_one_is_gone() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut mapper = stage.in_pod("m1").await;
        let nobody = denied(report(&mut mapper).await);
        assert!(nobody.contains("default/pump") && nobody.contains("modbus"), "{nobody}");
        assert_eq!(register(&mut mapper, &folder, "modbus").await.unwrap(), 1);
        report(&mut mapper).await.unwrap();

        let mut stranger = stage.in_pod("x1").await;
        let told = denied(register(&mut stranger, &folder, "modbus").await);
        assert!(told.contains("DaemonSet mappers/modbus"), "{told}");
        assert!(denied(report(&mut stranger).await).contains("default/pump"));
        denied(state(&mut stranger, "default", "pump").await);
        // Another protocol, under the name of the mapper: it has its own, and the mapper keeps its.
        assert_eq!(register(&mut stranger, &folder, "opcua").await.unwrap(), 0);
        denied(report(&mut stranger).await);
        report(&mut mapper).await.unwrap();

        // Its next pod is the same; one that is not on the node is nobody.
        stage.node.delete(PODS, "modbus-m1").await;
        stage.pod("m2", "modbus").await;
        let mut next = stage.in_pod("m2").await;
        report(&mut next).await.unwrap();
        register(&mut next, &folder, "modbus").await.unwrap();
        let mut ghost = stage.in_pod("ghost").await;
        denied(register(&mut ghost, &folder, "modbus").await);
        denied(report(&mut ghost).await);

        stage.node.delete(PODS, "modbus-m2").await;
        register(&mut stranger, &folder, "modbus").await.expect("the one before is gone");
        report(&mut stranger).await.unwrap();
        let shown = stage.node.snapshot().await;
        assert_eq!(shown["deniedCalls"], 7, "{shown}");
        assert!(shown["mappers"]["modbus"]["holder"].as_str().unwrap().contains("evil"), "{shown}");
        stage.node.stop().await;
    });
}

#[test]
fn a_restart_of_edgecore_gives_no_protocol_away() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut mapper = stage.in_pod("m1").await;
        register(&mut mapper, &folder, "modbus").await.unwrap();
        drop(mapper);
        stage.node.stop().await;

        let stage = Masked::start(&folder, Vec::new()).await;
        let mut stranger = stage.in_pod("x1").await;
        denied(register(&mut stranger, &folder, "modbus").await);
        denied(report(&mut stranger).await);
        // KubeEdge's mappers register once in their life.
        let mut mapper = stage.in_pod("m1").await;
        report(&mut mapper).await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn users_outside_of_pods_hold_by_their_processes() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        let as_user = async |uid, process| {
            let manager = stage.node.manager().await;
            stage.face.put_on(None, uid, process);
            manager
        };
        let mut first = as_user(1000, "alive").await;
        register(&mut first, &folder, "modbus").await.unwrap();
        let mut other = as_user(1001, "alive").await;
        denied(register(&mut other, &folder, "modbus").await);
        denied(report(&mut other).await);
        // Restarted, and now it has ended: nobody listens at its socket either.
        let mut again = as_user(1000, "ended").await;
        register(&mut again, &folder, "modbus").await.unwrap();
        let mut other = as_user(1001, "alive").await;
        register(&mut other, &folder, "modbus").await.unwrap();
        denied(report(&mut first).await);
        report(&mut other).await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn a_mapper_that_still_listens_is_there() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        let (_seen, server) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut first = stage.node.manager().await;
        stage.face.put_on(None, 0, "ended");
        register(&mut first, &folder, "modbus").await.unwrap();
        stage.pod("x1", "evil").await;
        let mut stranger = stage.in_pod("x1").await;
        report(&mut stranger).await.unwrap_err();
        // Whoever listens there is asked for: the face is that of the mapper again.
        stage.face.put_on(None, 0, "ended");
        denied(register(&mut stranger, &folder, "modbus").await);
        server.abort();
        until(|| server.is_finished()).await;
        register(&mut stranger, &folder, "modbus").await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn the_settings_say_who_may_be_a_mapper() {
    run(|folder| async move {
        let rule = MapperRule {
            namespace: "mappers".to_owned(),
            service_account: "modbus".to_owned(),
            protocols: vec!["modbus".to_owned()],
            ..Default::default()
        };
        let stage = Masked::start(&folder, vec![rule]).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut stranger = stage.in_pod("x1").await;
        assert!(
            denied(register(&mut stranger, &folder, "modbus").await).contains("modules.deviceTwin.mappers")
        );
        let mut mapper = stage.in_pod("m1").await;
        denied(register(&mut mapper, &folder, "opcua").await);
        register(&mut mapper, &folder, "modbus").await.unwrap();
        let mut root = stage.node.manager().await;
        stage.face.put_on(None, 0, "alive");
        denied(register(&mut root, &folder, "opcua").await);
        stage.node.stop().await;
    });
}

#[test]
fn names_that_are_paths_lead_nowhere() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        for (namespace, name) in [
            ("default", "devices/dev1?x="),
            ("default/devices", "pump"),
            ("..", "pump"),
            ("default", "../pump"),
            ("default", "pump?x="),
            ("default", "pump%2f"),
            ("default", "pump\0"),
            ("", "pump"),
            ("default", ""),
            ("Default", "pump"),
            ("default", "pump#"),
        ] {
            let refused = state(&mut manager, namespace, name).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{namespace} {name}");
        }
        for value in ["NaN", "-inf", " Infinity ", "1\u{1b}[2J", "\0"] {
            let refused = manager.report_device_status(status_report("", value)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{value}");
        }
        for property in ["", "a b", "a\n", "%2e", "a?b=", "ü"] {
            let mut request = status_report("", "1");
            property.clone_into(&mut request.reported_device.as_mut().unwrap().twins[0].property_name);
            let refused = manager.report_device_status(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{property}");
        }
        assert!(node.reports().iter().all(|report| !format!("{report:?}").contains("NaN")));
        state(&mut manager, "default", "pump").await.unwrap();
        node.stop().await;
    });
}

#[test]
fn a_mapper_cannot_make_edgecore_dial_somebody_else() {
    run(|folder| async move {
        let (shared, run) = (folder.join("mappers"), folder.join("run"));
        std::fs::create_dir_all(&shared).unwrap();
        std::fs::create_dir_all(&run).unwrap();
        let runtime = UnixListener::bind(run.join("containerd.sock")).unwrap();
        let settings = Settings { dmi_sock_path: shared.clone(), ..Default::default() };
        let node = start_told_by(&folder, options(), settings, Arc::new(edge_devicetwin::Kernel));
        node.pump("7").await;
        let socket = shared.join(dmi::SOCKET_NAME);
        until(|| socket.exists()).await;
        let mut manager = DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()));
        let mut claim = async |address: &Path| {
            let mut request = registration(&shared, true);
            request.mapper.as_mut().unwrap().address = address.to_str().unwrap().as_bytes().to_vec();
            manager.mapper_register(request).await
        };
        for elsewhere in [run.join("containerd.sock"), shared.join("../run/containerd.sock"), socket.clone()]
        {
            let refused = claim(&elsewhere).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{}", elsewhere.display());
        }
        symlink(run.join("containerd.sock"), shared.join("mapper.sock")).unwrap();
        claim(&shared.join("mapper.sock")).await.unwrap();
        node.pump("8").await;
        loop {
            let shown = node.snapshot().await;
            if shown["mappers"]["modbus"]["failures"].as_u64() > Some(0) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let came = futures::FutureExt::now_or_never(runtime.accept());
        assert!(came.is_none(), "the runtime was dialled");

        // The mapper itself, at the same place, is.
        std::fs::remove_file(shared.join("mapper.sock")).unwrap();
        let (mut seen, server) = Mapper::serve(&shared.join("mapper.sock"), false);
        assert_eq!(called(&mut seen).await, "register default/pump speed=8");
        server.abort();
        node.stop().await;
    });
}

#[test]
fn one_mapper_cannot_fill_the_outbox() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        for at in 0..2 {
            let device = json!({ "metadata": { "name": format!("more-{at}") }, "spec": {
                "nodeName": "edge-1", "properties": [], "protocol": { "protocolName": "modbus" } } });
            node.put(DEVICES, &format!("more-{at}"), &format!("more-{at}"), device).await;
        }
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        let invented = |device: &str, count: usize| {
            let mut request = status_report("", "1");
            device.clone_into(&mut request.device_name);
            let twins = &mut request.reported_device.as_mut().unwrap().twins;
            *twins = (0..count)
                .map(|at| pb::Twin { property_name: format!("p{at}"), ..twins[0].clone() })
                .collect();
            request
        };
        manager.report_device_status(invented("more-0", 900)).await.unwrap();
        let refused = manager.report_device_status(invented("more-1", 101)).await.unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted && refused.message().contains("model"),
            "{refused}"
        );
        manager.report_device_status(invented("more-1", 100)).await.unwrap();
        // What the administrator has named goes on.
        report(&mut manager).await.unwrap();
        node.stop().await;
    });
}

#[test]
fn a_flood_of_connections_leaves_room_for_others() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        let mut mapper = stage.in_pod("m1").await;
        register(&mut mapper, &folder, "modbus").await.unwrap();
        stage.face.put_on(Some("hog"), 0, "alive");
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(UnixStream::connect(folder.join(dmi::SOCKET_NAME)).await.unwrap());
        }
        let turned_away = async || stage.node.snapshot().await["connectionsTurnedAway"].as_u64().unwrap();
        while turned_away().await < 40 {
            tokio::task::yield_now().await;
        }
        let mut another = stage.in_pod("m1").await;
        tokio::time::timeout(SOON, report(&mut another)).await.expect("an answer").unwrap();
        stage.node.stop().await;
    });
}

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
            // Those above stay if other pods are in them.
            for folder in path.ancestors().take(4) {
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
        let node = start_told_by(&folder, options(), settings, Arc::new(edge_devicetwin::Kernel));
        until(|| alone.join(dmi::SOCKET_NAME).exists()).await;
        let refused = as_user(alone.join(dmi::SOCKET_NAME), GROUP).await.unwrap();
        assert_eq!(refused.unwrap_err(), std::io::ErrorKind::PermissionDenied);
        node.stop().await;

        let shared = folder.join("shared");
        let settings = Settings {
            dmi_sock_path: shared.clone(),
            dmi_sock_group: GROUP.to_string(),
            ..Default::default()
        };
        let node = start_told_by(&folder, options(), settings, Arc::new(edge_devicetwin::Kernel));
        node.pump("7").await;
        let socket = shared.join(dmi::SOCKET_NAME);
        until(|| socket.exists()).await;
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
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
