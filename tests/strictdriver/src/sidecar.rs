//! A sidecar of the cloud, as external-provisioner and external-attacher call a driver's socket.

use std::path::Path;
use std::time::Duration;

use csi::controller;
use csi::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, VolumeCapability,
};
use tonic::{Code, Request, Status};
use unixgrpc::{Client, Method};

/// 60 s for a call.
const CALL_WITHIN: Duration = Duration::from_secs(60);

/// A sidecar before a socket.
#[derive(Clone)]
pub struct Sidecar {
    client: Client,
    /// The node's name with the driver.
    node_id: String,
}

impl Sidecar {
    /// One that calls `socket` about volumes of the node that a driver names `node_id`.
    pub fn new(socket: &Path, node_id: &str) -> Sidecar {
        let socket = socket.to_owned();
        let channel = unixgrpc::channel_by(move || tokio::net::UnixStream::connect(socket.clone()));
        Sidecar { client: Client::new(channel, 4 << 20), node_id: node_id.to_owned() }
    }

    /// A call.
    ///
    /// # Errors
    /// The answer's.
    pub async fn call<Q, A>(&self, method: Method<Q, A>, message: Q) -> Result<A, Status>
    where
        Q: prost::Message,
        A: prost::Message + Default,
    {
        let mut request = Request::new(message);
        request.set_timeout(CALL_WITHIN);
        self.client.call(method, request).await
    }

    /// Makes a volume, and answers its handle.
    ///
    /// # Errors
    /// The driver's.
    pub async fn create(&self, name: &str, bytes: i64) -> Result<String, Status> {
        let message = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capabilities: vec![VolumeCapability::default()],
            ..CreateVolumeRequest::default()
        };
        let made = self.call(controller::CREATE_VOLUME, message).await?;
        made.volume.map(|volume| volume.volume_id).ok_or_else(|| Status::internal("no volume in the answer"))
    }

    /// Deletes a volume.
    ///
    /// # Errors
    /// The driver's.
    pub async fn delete(&self, handle: &str) -> Result<(), Status> {
        let message = DeleteVolumeRequest { volume_id: handle.to_owned(), ..DeleteVolumeRequest::default() };
        self.call(controller::DELETE_VOLUME, message).await.map(drop)
    }

    /// Attaches a volume to the node, and answers the device that the driver names.
    ///
    /// # Errors
    /// The driver's.
    pub async fn attach(&self, handle: &str, readonly: bool) -> Result<String, Status> {
        let message = ControllerPublishVolumeRequest {
            volume_id: handle.to_owned(),
            node_id: self.node_id.clone(),
            readonly,
            ..ControllerPublishVolumeRequest::default()
        };
        let mut attached = self.call(controller::CONTROLLER_PUBLISH_VOLUME, message).await?;
        attached.publish_context.remove("device").ok_or_else(|| Status::internal("no device in the answer"))
    }

    /// Detaches a volume from the node.
    ///
    /// # Errors
    /// The driver's.
    pub async fn detach(&self, handle: &str) -> Result<(), Status> {
        let message = ControllerUnpublishVolumeRequest {
            volume_id: handle.to_owned(),
            node_id: self.node_id.clone(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.call(controller::CONTROLLER_UNPUBLISH_VOLUME, message).await.map(drop)
    }

    /// The life of a volume, with what goes wrong in it, and each call twice.
    ///
    /// # Panics
    /// When an answer is not what the driver says.
    pub async fn a_volumes_life(&self, name: &str) {
        let handle = format!("vol-{name}");
        for _ in 0..2 {
            assert_eq!(self.create(name, 5).await.as_deref().ok(), Some(handle.as_str()));
        }
        let code = |result: Result<String, Status>| result.err().map(|status| status.code());
        assert_eq!(code(self.create(name, 6).await), Some(Code::AlreadyExists));
        assert_eq!(code(self.create("large", crate::SIZE + 1).await), Some(Code::ResourceExhausted));
        for _ in 0..2 {
            assert_eq!(self.attach(&handle, false).await.ok(), Some(format!("/dev/{handle}")));
        }
        assert_eq!(code(self.attach(&handle, true).await), Some(Code::AlreadyExists));
        let held = self.delete(&handle).await.err();
        let held = held.as_ref().map(|held| (held.code(), held.message()));
        assert_eq!(held, Some((Code::FailedPrecondition, "it is attached")));
        for _ in 0..2 {
            assert!(self.detach(&handle).await.is_ok());
        }
        for _ in 0..2 {
            assert!(self.delete(&handle).await.is_ok());
        }
    }
}
