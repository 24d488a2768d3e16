//! The mapper's own socket: what edgecore calls.

use std::time::Duration;

use beehive::{Address, AskError, Reply};
use dmi::v1beta1::device_mapper_service_server::{DeviceMapperService, DeviceMapperServiceServer};
use dmi::v1beta1::{
    CreateDeviceModelRequest, CreateDeviceModelResponse, Device, DeviceModel, GetDeviceRequest,
    GetDeviceResponse, RegisterDeviceRequest, RegisterDeviceResponse, RemoveDeviceModelRequest,
    RemoveDeviceModelResponse, RemoveDeviceRequest, RemoveDeviceResponse, UpdateDeviceModelRequest,
    UpdateDeviceModelResponse, UpdateDeviceRequest, UpdateDeviceResponse,
};
use tokio::net::UnixListener;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::error::PanelError;
use crate::message::MapperMsg;
use crate::panel::name_of;

/// 5 s: the mapper has a call in hand for far less; longer than that it is being started again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Serves until an error.
pub(crate) async fn serve(
    listener: UnixListener,
    mapper: Address<MapperMsg>,
) -> Result<(), tonic::transport::Error> {
    let service = DeviceMapperServiceServer::new(Service { mapper })
        .max_decoding_message_size(dmi::MESSAGE_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    dmi::server().serve_with_incoming(service, dmi::incoming(listener)).await
}

struct Service {
    mapper: Address<MapperMsg>,
}

impl Service {
    async fn ask<T: Send + 'static>(&self, make: impl FnOnce(Reply<T>) -> MapperMsg) -> Result<T, Status> {
        self.mapper.ask(ANSWER_DEADLINE, make).await.map_err(|error| match error {
            AskError::Deadline => Status::deadline_exceeded("the mapper is busy"),
            other => Status::unavailable(format!("the mapper cannot answer now: {other}")),
        })
    }

    async fn register_device(&self, device: Device) -> Result<(), Status> {
        Ok(self.ask(|reply| MapperMsg::RegisterDevice(Box::new(device), reply)).await??)
    }

    async fn register_model(&self, model: DeviceModel) -> Result<(), Status> {
        Ok(self.ask(|reply| MapperMsg::RegisterModel(Box::new(model), reply)).await??)
    }
}

impl From<PanelError> for Status {
    fn from(error: PanelError) -> Self {
        match error {
            PanelError::NoName(_) | PanelError::LongName => Status::invalid_argument(error.to_string()),
            PanelError::TooManyDevices | PanelError::TooManyModels => {
                Status::resource_exhausted(error.to_string())
            }
        }
    }
}

fn device(device: Option<Device>) -> Result<Device, Status> {
    device.ok_or_else(|| Status::invalid_argument("the request has no device"))
}

fn model(model: Option<DeviceModel>) -> Result<DeviceModel, Status> {
    model.ok_or_else(|| Status::invalid_argument("the request has no model"))
}

// A device whose model is not here yet is taken and served once the model comes: KubeEdge's framework waits for it
// and fails the call after three seconds.
#[tonic::async_trait]
impl DeviceMapperService for Service {
    async fn register_device(
        &self,
        request: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisterDeviceResponse>, Status> {
        let device = device(request.into_inner().device)?;
        let answer = RegisterDeviceResponse {
            device_name: device.name.clone(),
            device_namespace: device.namespace.clone(),
        };
        self.register_device(device).await?;
        Ok(Response::new(answer))
    }

    async fn update_device(
        &self,
        request: Request<UpdateDeviceRequest>,
    ) -> Result<Response<UpdateDeviceResponse>, Status> {
        self.register_device(device(request.into_inner().device)?).await?;
        Ok(Response::new(UpdateDeviceResponse {}))
    }

    async fn remove_device(
        &self,
        request: Request<RemoveDeviceRequest>,
    ) -> Result<Response<RemoveDeviceResponse>, Status> {
        let request = request.into_inner();
        let name = name_of(&request.device_namespace, &request.device_name);
        if !self.ask(|reply| MapperMsg::RemoveDevice(name.clone(), reply)).await? {
            tracing::debug!(device = %name, "asked to remove a device that is not here");
        }
        Ok(Response::new(RemoveDeviceResponse {}))
    }

    async fn create_device_model(
        &self,
        request: Request<CreateDeviceModelRequest>,
    ) -> Result<Response<CreateDeviceModelResponse>, Status> {
        let model = model(request.into_inner().model)?;
        let answer = CreateDeviceModelResponse {
            device_model_name: model.name.clone(),
            device_model_namespace: model.namespace.clone(),
        };
        self.register_model(model).await?;
        Ok(Response::new(answer))
    }

    async fn update_device_model(
        &self,
        request: Request<UpdateDeviceModelRequest>,
    ) -> Result<Response<UpdateDeviceModelResponse>, Status> {
        self.register_model(model(request.into_inner().model)?).await?;
        Ok(Response::new(UpdateDeviceModelResponse {}))
    }

    async fn remove_device_model(
        &self,
        request: Request<RemoveDeviceModelRequest>,
    ) -> Result<Response<RemoveDeviceModelResponse>, Status> {
        let request = request.into_inner();
        let name = name_of(&request.model_namespace, &request.model_name);
        self.ask(|reply| MapperMsg::RemoveModel(name, reply)).await?;
        Ok(Response::new(RemoveDeviceModelResponse {}))
    }

    async fn get_device(
        &self,
        request: Request<GetDeviceRequest>,
    ) -> Result<Response<GetDeviceResponse>, Status> {
        let request = request.into_inner();
        let name = name_of(&request.device_namespace, &request.device_name);
        let device = self.ask(|reply| MapperMsg::GetDevice(name.clone(), reply)).await?;
        let device = device.ok_or_else(|| Status::not_found(format!("no device {name}")))?;
        Ok(Response::new(GetDeviceResponse { device: Some(*device) }))
    }
}
