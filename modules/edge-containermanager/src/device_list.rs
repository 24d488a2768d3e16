//! The list of a plugin's devices, read with a bound: the generated code would make whatever a message of 4 MiB can be made of.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use contract::containermanager::PluginDevice;
use kubeletapi::deviceplugin::Device;
use prost::Message as _;

/// Devices of one resource. Plugins that share a thing among pods make thousands of it, none so many.
pub(crate) const DEVICES_MAX: usize = 16_384;
/// 1 KiB of a device's name.
const ID_MAX: usize = 1 << 10;
/// NUMA nodes are numbered below this.
const NODES: i64 = 64;
/// The one word that means so.
const HEALTHY: &str = "Healthy";
/// `devices`, with a length.
const DEVICES_KEY: u64 = (1 << 3) | 2;

/// What a plugin says that it has.
#[derive(Debug)]
pub(crate) struct DeviceList {
    /// By name; of two with one name the later one.
    pub(crate) devices: BTreeMap<String, PluginDevice>,
    /// Those that nobody can be given, since their names are empty or longer than 1 KiB.
    pub(crate) nameless: usize,
}

/// The devices of a `ListAndWatchResponse`.
///
/// # Errors
/// A sentence.
pub(crate) fn decode(mut bytes: Bytes) -> Result<DeviceList, String> {
    let (mut devices, mut nameless) = (BTreeMap::new(), 0);
    while bytes.has_remaining() {
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX),
            5 => 4,
            _ => return Err("the list of devices is no protobuf message".to_owned()),
        };
        if length > bytes.remaining() {
            return Err("the list of devices is cut off".to_owned());
        }
        let field = bytes.split_to(length);
        if key != DEVICES_KEY {
            continue;
        }
        let device = Device::decode(field).map_err(|error| format!("a device is not understood: {error}"))?;
        if device.id.is_empty() || device.id.len() > ID_MAX {
            nameless += 1;
            continue;
        }
        let nodes = device.topology.into_iter().flat_map(|topology| topology.nodes);
        let nodes = nodes.filter(|node| (0..NODES).contains(&node.id));
        let nodes = nodes.filter_map(|node| u32::try_from(node.id).ok()).collect();
        devices.insert(device.id, PluginDevice { is_healthy: device.health == HEALTHY, nodes });
        if devices.len() > DEVICES_MAX {
            return Err(format!("there are more than {DEVICES_MAX} devices"));
        }
    }
    Ok(DeviceList { devices, nameless })
}

fn varint(bytes: &mut Bytes) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        if !bytes.has_remaining() {
            return Err("the list of devices is cut off".to_owned());
        }
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("the list of devices has a number of more than 64 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubeletapi::deviceplugin::{ListAndWatchResponse, NumaNode, TopologyInfo};

    fn device(id: &str, health: &str, nodes: &[i64]) -> Device {
        let nodes = nodes.iter().map(|id| NumaNode { id: *id }).collect();
        Device { id: id.to_owned(), health: health.to_owned(), topology: Some(TopologyInfo { nodes }) }
    }

    fn read(devices: Vec<Device>) -> Result<BTreeMap<String, PluginDevice>, String> {
        decoded(ListAndWatchResponse { devices }.encode_to_vec().into())
    }

    fn decoded(bytes: Bytes) -> Result<BTreeMap<String, PluginDevice>, String> {
        decode(bytes).map(|list| list.devices)
    }

    #[test]
    fn a_device_without_a_name_keeps_none_from_the_others() {
        let list = vec![device("", "Healthy", &[]), device(&"x".repeat(1025), "", &[]), device("a", "", &[])];
        let list = decode(ListAndWatchResponse { devices: list }.encode_to_vec().into()).unwrap();
        assert_eq!((list.nameless, list.devices.len()), (2, 1));
    }

    #[test]
    fn a_list_is_read_as_the_generated_code_would() {
        let list =
            vec![device("a", "Healthy", &[0, 1]), device("b", "healthy", &[-1, 64]), device("c", "", &[])];
        let read = read(list).unwrap();
        assert_eq!(read["a"], PluginDevice { is_healthy: true, nodes: [0, 1].into() });
        assert_eq!(read["b"], PluginDevice { is_healthy: false, nodes: [].into() }, "exactly the word");
        assert!(!read["c"].is_healthy);
        assert_eq!(decoded(Bytes::new()).unwrap().len(), 0);
        // Fields of later versions are passed over.
        let mut bytes =
            vec![0x10, 0x96, 0x01, 0x1a, 0x02, 1, 2, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        bytes.extend(ListAndWatchResponse { devices: vec![device("a", "Healthy", &[])] }.encode_to_vec());
        assert_eq!(decoded(bytes.into()).unwrap().len(), 1);
    }

    #[test]
    fn too_much_and_nonsense_are_refused() {
        let many = (0..=DEVICES_MAX).map(|number| device(&number.to_string(), "Healthy", &[])).collect();
        assert!(read(many).unwrap_err().contains("more than 16384"));
        for bad in [&[0x0a, 0x05, 1][..], &[0xff; 11], &[0x0b], &[0x0a, 0x01, 0xff], &[0x0a]] {
            assert!(decode(Bytes::copy_from_slice(bad)).is_err(), "{bad:x?}");
        }
    }
}
