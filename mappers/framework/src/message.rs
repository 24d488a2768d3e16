//! The mapper's messages.

use apimachinery::NamespacedName;
use beehive::{Address, Lane, Message, Reply};
use dmi::v1beta1::{Device, DeviceModel, MapperRegisterResponse};
use tonic::Status;

use crate::device::DeviceMsg;
use crate::error::PanelError;

/// What the mapper is told.
#[derive(Debug)]
pub(crate) enum MapperMsg {
    /// It is time to register at edgecore.
    Register,
    /// edgecore has answered the registration that was sent after so many of its calls.
    RegistrationAnswered(u64, Box<Result<MapperRegisterResponse, Status>>),
    /// A connection to edgecore was lost.
    EdgeCoreLost,
    /// The mapper's socket is not where edgecore calls any more.
    SocketGone,
    /// The server of the mapper's socket has ended.
    ServerEnded(String),
    /// edgecore has a new or changed device.
    RegisterDevice(Box<Device>, Reply<Result<(), PanelError>>),
    /// edgecore has removed a device. Answers whether it was here.
    RemoveDevice(NamespacedName, Reply<bool>),
    /// edgecore has a new or changed model.
    RegisterModel(Box<DeviceModel>, Reply<Result<(), PanelError>>),
    /// edgecore has removed a model.
    RemoveModel(NamespacedName, Reply<()>),
    /// Somebody wants to ask a device itself.
    FindDevice(NamespacedName, Reply<Option<Address<DeviceMsg>>>),
    /// Somebody asks for the methods of a device and for its model, as KubeEdge's REST interface has them.
    DescribeDevice(NamespacedName, Reply<Option<(serde_json::Value, serde_json::Value)>>),
    /// Somebody asks for a device with what is known of its twins.
    GetDevice(NamespacedName, Reply<Option<Box<Device>>>),
}

impl Message for MapperMsg {
    fn name(&self) -> &'static str {
        match self {
            MapperMsg::Register => "Register",
            MapperMsg::RegistrationAnswered(..) => "RegistrationAnswered",
            MapperMsg::EdgeCoreLost => "EdgeCoreLost",
            MapperMsg::SocketGone => "SocketGone",
            MapperMsg::ServerEnded(_) => "ServerEnded",
            MapperMsg::RegisterDevice(..) => "RegisterDevice",
            MapperMsg::RemoveDevice(..) => "RemoveDevice",
            MapperMsg::RegisterModel(..) => "RegisterModel",
            MapperMsg::RemoveModel(..) => "RemoveModel",
            MapperMsg::FindDevice(..) => "FindDevice",
            MapperMsg::DescribeDevice(..) => "DescribeDevice",
            MapperMsg::GetDevice(..) => "GetDevice",
        }
    }

    fn lane(&self) -> Lane {
        match self {
            MapperMsg::ServerEnded(_) => Lane::Control,
            _ => Lane::Work,
        }
    }
}
