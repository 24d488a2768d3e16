//! A bus of this machine, by way of Linux' sockets for CAN.

use std::io;
use std::time::Duration;

use socketcan::tokio::CanSocket;
use socketcan::{
    CanDataFrame, CanFilter, CanFrame, EmbeddedFrame as _, ExtendedId, Frame as _, Id, SocketOptions as _,
    StandardId,
};
use tokio::time::sleep;

use crate::frame::{CanId, Frame};

/// What Linux puts beside an id: 29 bits, and that data are asked for.
const EXTENDED: u32 = 0x8000_0000;
const REMOTE: u32 = 0x4000_0000;
/// That the controller has left the bus, among the errors that are told as frames.
const BUS_OFF: u32 = 0x40;
/// 512: the filters that Linux takes (`CAN_RAW_FILTER_MAX`).
const FILTERS_MAX: usize = 512;
/// 10 ms until there is room again in a queue that is full, and how often: a bus that takes nothing for a second takes nothing.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
const QUEUE_TRIES: usize = 100;

/// A socket that hears some frames of a bus.
#[derive(Debug)]
pub(crate) struct KernelBus {
    socket: CanSocket,
    name: String,
}

impl KernelBus {
    pub(crate) fn open(name: &str, ids: &[CanId]) -> Result<Self, String> {
        let failed = |error: &io::Error| words(name, error);
        let socket = CanSocket::open(name).map_err(|error| failed(&error))?;
        if ids.len() <= FILTERS_MAX {
            let filters: Vec<CanFilter> = ids.iter().map(filter).collect();
            socket.set_filters(&filters).map_err(|error| failed(&error))?;
        }
        socket.set_error_filter(BUS_OFF).map_err(|error| failed(&error))?;
        Ok(KernelBus { socket, name: name.to_owned() })
    }

    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        let id = if frame.id.is_extended {
            ExtendedId::new(frame.id.number).map(Id::Extended)
        } else {
            u16::try_from(frame.id.number).ok().and_then(StandardId::new).map(Id::Standard)
        };
        let data = id.and_then(|id| CanDataFrame::new(id, frame.bytes()));
        let data = data.ok_or_else(|| format!("{} is no frame", frame.id))?;
        for _ in 0..QUEUE_TRIES {
            match self.socket.write_frame(CanFrame::Data(data)).await {
                // The queue of the interface, which is short, says this and not that it would block.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => sleep(QUEUE_PAUSE).await,
                sent => return sent.map_err(|error| words(&self.name, &error)),
            }
        }
        Err(format!("{} takes no frame: is anybody else on the bus, and its bitrate right?", self.name))
    }

    pub(crate) async fn receive(&mut self) -> Result<Frame, String> {
        loop {
            let came = self.socket.read_frame().await.map_err(|error| words(&self.name, &error))?;
            match came {
                CanFrame::Data(data) => {
                    let id = CanId::new(data.raw_id(), data.is_extended());
                    if let Some(frame) = id.and_then(|id| Frame::new(id, data.data())) {
                        return Ok(frame);
                    }
                }
                CanFrame::Error(error) if error.error_bits() & BUS_OFF != 0 => {
                    let name = &self.name;
                    return Err(format!(
                        "{name} is off the bus after too many errors; look at its wires and bitrate, and have it come back by itself: \
                         ip link set {name} type can restart-ms 100"
                    ));
                }
                CanFrame::Remote(_) | CanFrame::Error(_) => {}
            }
        }
    }
}

fn filter(id: &CanId) -> CanFilter {
    let (extended, mask) = if id.is_extended { (EXTENDED, 0x1FFF_FFFF) } else { (0, 0x7FF) };
    CanFilter::new(id.number | extended, mask | EXTENDED | REMOTE)
}

/// What is wrong with a bus, and what to do about it.
fn words(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => format!(
            "the kernel of this node has no CAN: load its modules (modprobe can can_raw), take another kernel, or write the `gateway` \
             that has {name}"
        ),
        Some(libc::ENODEV) => format!("there is no interface {name}; `ip link` shows which there are"),
        Some(libc::ENETDOWN) => {
            format!("{name} is down; ip link set {name} up type can bitrate 500000")
        }
        Some(libc::EPERM | libc::EACCES) => format!("the mapper may not use {name}: {error}"),
        _ => format!("{name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_bus_says_what_to_do() {
        for (number, said) in [
            (libc::EAFNOSUPPORT, "no CAN: load its modules"),
            (libc::ENODEV, "there is no interface can7"),
            (libc::ENETDOWN, "can7 is down"),
            (libc::EIO, "can7: "),
        ] {
            let sentence = words("can7", &io::Error::from_raw_os_error(number));
            assert!(sentence.contains(said), "{sentence}");
        }
    }

    /// On a kernel with CAN, which has no such interface, and on one without.
    #[tokio::test]
    async fn a_bus_that_is_not_there_is_said() {
        let refusal = KernelBus::open("no-such-bus", &[]).unwrap_err();
        assert!(refusal.contains("has no CAN") || refusal.contains("no interface no-such-bus"), "{refusal}");
    }
}
