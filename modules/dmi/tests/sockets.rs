//! Both services over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;

use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use dmi::v1beta1::device_manager_service_server::{DeviceManagerService, DeviceManagerServiceServer};
use dmi::v1beta1::*;
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
