//! The methods of both services.

use crate::v1beta1::*;

/// What edgecore tells of its side's interface to tools that ask.
pub static INTERFACE: unixgrpc::Interface = unixgrpc::Interface::new(
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")),
    &["v1beta1.DeviceManagerService"],
);

unixgrpc::methods! {
    /// Served by edgecore, called by mappers.
    pub mod manager = "v1beta1.DeviceManagerService" {
        MAPPER_REGISTER = MapperRegister(MapperRegisterRequest) returns (MapperRegisterResponse);
        REPORT_DEVICE_STATUS = ReportDeviceStatus(ReportDeviceStatusRequest) returns (ReportDeviceStatusResponse);
        REPORT_DEVICE_STATES = ReportDeviceStates(ReportDeviceStatesRequest) returns (ReportDeviceStatesResponse);
    }
}

unixgrpc::methods! {
    /// Served by every mapper, called by edgecore.
    pub mod mapper = "v1beta1.DeviceMapperService" {
        REGISTER_DEVICE = RegisterDevice(RegisterDeviceRequest) returns (RegisterDeviceResponse);
        REMOVE_DEVICE = RemoveDevice(RemoveDeviceRequest) returns (RemoveDeviceResponse);
        UPDATE_DEVICE = UpdateDevice(UpdateDeviceRequest) returns (UpdateDeviceResponse);
        CREATE_DEVICE_MODEL = CreateDeviceModel(CreateDeviceModelRequest) returns (CreateDeviceModelResponse);
        REMOVE_DEVICE_MODEL = RemoveDeviceModel(RemoveDeviceModelRequest) returns (RemoveDeviceModelResponse);
        UPDATE_DEVICE_MODEL = UpdateDeviceModel(UpdateDeviceModelRequest) returns (UpdateDeviceModelResponse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unixgrpc::undeclared;

    #[test]
    fn the_methods_are_those_of_the_interface_file() {
        let interface = include_str!("../proto/dmi.proto");
        assert_eq!(undeclared(interface, "DeviceManagerService", manager::DECLARED), [""; 0]);
        assert_eq!(undeclared(interface, "DeviceMapperService", mapper::DECLARED), [""; 0]);
    }
}
