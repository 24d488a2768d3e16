//! A bus: of this machine, or behind a gateway.

use std::time::Duration;

use tokio::time::timeout;

use crate::address::Interface;
use crate::frame::{CanId, Frame};
use crate::gateway::GatewayBus;
use crate::kernel::KernelBus;

/// 5 s for a gateway.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// 1 ms: what has come is there by then.
const STALE_WITHIN: Duration = Duration::from_millis(1);
/// 4096: frames that wait and are thrown away at once.
const STALE_MAX: usize = 4096;

/// A bus, of which only some frames are heard.
#[derive(Debug)]
pub(crate) struct Bus {
    wire: Wire,
    ids: Vec<CanId>,
}

#[derive(Debug)]
enum Wire {
    Kernel(KernelBus),
    Gateway(GatewayBus),
}

impl Bus {
    /// Hears frames with these ids.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) async fn open(interface: &Interface, ids: Vec<CanId>) -> Result<Self, String> {
        let wire = match &interface.gateway {
            None => Wire::Kernel(KernelBus::open(&interface.name, &ids)?),
            Some((host, port)) => {
                let opening = timeout(OPEN_WITHIN, GatewayBus::open(host, *port, &interface.name)).await;
                let opened =
                    opening.unwrap_or_else(|_| Err("it does not answer; is it a socketcand?".to_owned()));
                Wire::Gateway(opened.map_err(|reason| format!("gateway {host}:{port}: {reason}"))?)
            }
        };
        Ok(Bus { wire, ids })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// A sentence; nothing was sent then.
    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        match &mut self.wire {
            Wire::Kernel(bus) => bus.send(frame).await,
            Wire::Gateway(bus) => bus.send(frame).await,
        }
    }

    /// The next frame. It may be dropped before it is there.
    ///
    /// # Errors
    /// A sentence; the bus is of no use any more.
    pub(crate) async fn receive(&mut self) -> Result<Frame, String> {
        loop {
            let frame = match &mut self.wire {
                Wire::Kernel(bus) => bus.receive().await?,
                Wire::Gateway(bus) => bus.receive().await?,
            };
            if self.ids.contains(&frame.id) {
                return Ok(frame);
            }
        }
    }

    /// Throws away what has come since: it belongs to nothing that is asked from now on.
    ///
    /// # Errors
    /// As [`Bus::receive`].
    pub(crate) async fn discard(&mut self) -> Result<(), String> {
        for _ in 0..STALE_MAX {
            match timeout(STALE_WITHIN, self.receive()).await {
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Err(reason),
                Err(_) => break,
            }
        }
        Ok(())
    }
}
