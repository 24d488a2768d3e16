//! What one client subscribes to, and leaves.

use crate::connection::Client;
use crate::error::ConnectionError;
use crate::packet::{self, FilterRequest};

impl Client {
    pub(crate) fn subscribe(
        &self,
        pkid: u16,
        id: Option<u32>,
        mut filters: Vec<FilterRequest>,
    ) -> Result<(), ConnectionError> {
        self.check_answer(filters.len())?;
        if self.handle.connect_info.is_bridge {
            // What a bridge has brought it does not want back, and it keeps what was retained.
            filters.iter_mut().for_each(|asked| (asked.no_local, asked.retain_as_published) = (true, true));
        }
        let mut broker = self.shared.broker.borrow_mut();
        let codes: Vec<u8> = filters.iter().map(|asked| broker.subscribe(&self.id, asked, id)).collect();
        self.handle.send(packet::suback(pkid, self.version(), &codes));
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, pkid: u16, filters: &[String]) -> Result<(), ConnectionError> {
        self.check_answer(filters.len())?;
        let mut broker = self.shared.broker.borrow_mut();
        // 0x11: there was no such subscription.
        let leave = |filter: &String| if broker.unsubscribe(&self.id, filter) { 0 } else { 0x11 };
        let codes: Vec<u8> = filters.iter().map(leave).collect();
        self.handle.send(packet::unsuback(pkid, self.version(), &codes));
        Ok(())
    }

    /// Before anything is done of which a client that takes only small packets could not be told [MQTT-3.1.2-24].
    fn check_answer(&self, codes: usize) -> Result<(), ConnectionError> {
        let fits = packet::answer_size(codes) <= self.handle.connect_info.packet_maximum;
        fits.then_some(()).ok_or(ConnectionError::Coded(0x95, "answer is larger than the client takes"))
    }
}
