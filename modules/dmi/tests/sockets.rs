//! Both services over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use dmi::v1beta1::device_manager_service_server::{DeviceManagerService, DeviceManagerServiceServer};
use dmi::v1beta1::*;
use rustix::fs::{AtFlags, RenameFlags};
use tonic::{Request, Response, Status};

struct Manager;

#[tonic::async_trait]
impl DeviceManagerService for Manager {
    async fn mapper_register(
        &self,
        request: Request<MapperRegisterRequest>,
    ) -> Result<Response<MapperRegisterResponse>, Status> {
        let mapper = request.into_inner().mapper.ok_or_else(|| Status::invalid_argument("no mapper"))?;
        let device = Device { name: mapper.name, ..Device::default() };
        Ok(Response::new(MapperRegisterResponse { device_list: vec![device], ..Default::default() }))
    }
    async fn report_device_status(
        &self,
        _: Request<ReportDeviceStatusRequest>,
    ) -> Result<Response<ReportDeviceStatusResponse>, Status> {
        Ok(Response::new(ReportDeviceStatusResponse {}))
    }
    async fn report_device_states(
        &self,
        _: Request<ReportDeviceStatesRequest>,
    ) -> Result<Response<ReportDeviceStatesResponse>, Status> {
        Ok(Response::new(ReportDeviceStatesResponse {}))
    }
}

/// A server and how to end it: its connections end with it, as they do when a process ends.
struct Served {
    end: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn at(path: &std::path::Path) -> Self {
        let listener = dmi::listen(path).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .serve_with_incoming_shutdown(
                    DeviceManagerServiceServer::new(Manager),
                    dmi::incoming(listener),
                    async move { drop(ended.await) },
                )
                .await
                .unwrap();
        });
        Self { end, task }
    }

    async fn end(self) {
        drop(self.end);
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_channel_survives_a_restart_of_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(dmi::SOCKET_NAME);
    let server = Served::at(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = DeviceManagerServiceClient::new(dmi::channel(&format!("unix://{}", path.display())));
    let mapper = MapperInfo { name: "m".to_owned(), protocol: "modbus".to_owned(), ..Default::default() };
    let request = MapperRegisterRequest { with_data: true, mapper: Some(mapper) };
    let answer = client.mapper_register(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.device_list[0].name, "m");
    server.end().await;
    assert!(client.mapper_register(request.clone()).await.is_err());
    // The file of the dead server is still there and is replaced.
    let _server = Served::at(&path);
    assert!(client.mapper_register(request).await.is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    std::fs::write(&path, "mine").unwrap();
    let error = dmi::listen(&path).unwrap_err().to_string();
    assert!(error.contains("notes") && error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

/// What must stay as it is: a file of the host, outside of the folder that mappers share.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("passwd"), "root:x:0:0").unwrap();
        std::fs::set_permissions(folder.path().join("passwd"), std::fs::Permissions::from_mode(0o644))
            .unwrap();
        Self { folder }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("passwd")
    }

    fn is_untouched(&self) -> bool {
        let found = std::fs::metadata(self.file()).unwrap();
        found.permissions().mode() & 0o7777 == 0o644
            && found.gid() == std::fs::metadata(self.folder.path()).unwrap().gid()
            && std::fs::read_to_string(self.file()).unwrap() == "root:x:0:0"
    }
}

/// Another group than one's own, for those who may give files away.
fn another_group() -> u32 {
    let own = rustix::process::getegid().as_raw();
    if rustix::process::geteuid().is_root() { own + 1234 } else { own }
}

#[tokio::test]
async fn whoever_exchanges_the_socket_for_a_link_moves_no_other_file() {
    let (host, folder) = (Host::new(), tempfile::tempdir().unwrap());
    let at = std::fs::File::open(folder.path()).unwrap();
    let target = host.file();
    let stop = AtomicBool::new(false);
    let won = std::thread::scope(|threads| {
        let attacker = threads.spawn(|| {
            let mut won = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for name in [dmi::SOCKET_NAME, "dmi.sock.new"] {
                    let _ = rustix::fs::symlinkat(&target, &at, "link");
                    let exchanged = rustix::fs::renameat_with(&at, "link", &at, name, RenameFlags::EXCHANGE);
                    won += u64::from(exchanged.is_ok());
                    // What came in return makes room for the next link.
                    let _ = rustix::fs::unlinkat(&at, "link", AtFlags::empty());
                }
            }
            won
        });
        for _ in 0..2000 {
            // Whoever loses every time says so, and tries again later.
            let _ = dmi::take(folder.path(), Some(another_group()));
        }
        stop.store(true, Ordering::Relaxed);
        attacker.join().unwrap()
    });
    assert!(won > 100, "{won} exchanges");
    assert!(host.is_untouched());
    // The start after it needs nobody to clean up.
    let taken = dmi::take(folder.path(), Some(another_group())).unwrap();
    let found = std::fs::symlink_metadata(folder.path().join(dmi::SOCKET_NAME)).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o660, another_group()));
    tokio::net::UnixStream::connect(folder.path().join(dmi::SOCKET_NAME)).await.unwrap();
    taken.listener.accept().await.unwrap();
    assert!(host.is_untouched());
}

#[tokio::test]
async fn whatever_stands_in_the_way_goes_and_the_next_start_works() {
    let host = Host::new();
    let outside = host.folder.path().to_owned();
    type Put = Box<dyn Fn(&std::path::Path)>;
    let puts: [(&str, bool, Put); 8] = [
        ("a link to a file", false, Box::new(move |at| symlink(host_file(&outside), at).unwrap())),
        ("a link to a folder", false, Box::new(|at| symlink("/", at).unwrap())),
        ("a link to nowhere", false, Box::new(|at| symlink("/nowhere/at/all", at).unwrap())),
        ("an empty file", false, Box::new(|at| std::fs::write(at, "").unwrap())),
        ("a file", true, Box::new(|at| std::fs::write(at, "mine").unwrap())),
        ("an empty folder", false, Box::new(|at| std::fs::create_dir(at).unwrap())),
        (
            "a full folder",
            true,
            Box::new(|at| {
                std::fs::create_dir(at).unwrap();
                std::fs::write(at.join("x"), "mine").unwrap();
            }),
        ),
        ("a dead socket", false, Box::new(|at| drop(std::os::unix::net::UnixListener::bind(at).unwrap()))),
    ];
    for (what, has_content, put) in puts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(dmi::SOCKET_NAME);
        put(&path);
        let taken = dmi::take(folder.path(), None).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket(), "{what}");
        assert_eq!(found.permissions().mode() & 0o7777, 0o600, "{what}");
        assert_eq!(taken.aside.len(), usize::from(has_content), "{what}");
        for aside in &taken.aside {
            let kept = if aside.is_dir() { aside.join("x") } else { aside.clone() };
            assert_eq!(std::fs::read_to_string(kept).unwrap(), "mine", "{what}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1 + taken.aside.len(), "{what}");
    }
    assert!(host.is_untouched());
}

fn host_file(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join("passwd")
}

#[tokio::test]
async fn a_mappers_socket_replaces_no_link_either() {
    let (host, folder) = (Host::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("mapper.sock");
    symlink(host.file(), &path).unwrap();
    assert!(dmi::listen(&path).unwrap_err().to_string().contains("not a socket"));
    assert!(host.is_untouched());
    let long = folder.path().join("x".repeat(100));
    assert!(dmi::listen(&long).unwrap_err().to_string().contains("107 bytes"));
    assert!(dmi::listen(std::path::Path::new("/")).is_err());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_and_one_that_is_stays() {
    let root = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let made = root.path().join("a/b");
    dmi::take(&made, None).unwrap();
    assert_eq!(mode(&made), 0o755);
    let shared = root.path().join("shared");
    dmi::take(&shared, Some(another_group())).unwrap();
    assert_eq!((mode(&shared), std::fs::metadata(&shared).unwrap().gid()), (0o1770, another_group()));
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o711)).unwrap();
    dmi::take(&made, Some(another_group())).unwrap();
    assert_eq!(mode(&made), 0o711);
    symlink("/nowhere/at/all", root.path().join("nowhere")).unwrap();
    assert!(dmi::take(&root.path().join("nowhere"), None).is_err());
}
