//! The link as the node's page shows it.

use beehive::Moment;
use contract::edgepage::{LinkView, ViewBounds};

use super::EdgeHub;
use super::keeping::Keeping;

impl EdgeHub {
    /// What there is to say of the link at `now`.
    pub(super) fn describe(&self, bounds: ViewBounds, now: Moment) -> LinkView {
        let server = self.up.as_ref().and_then(|up| self.endpoints.0.get(up.server));
        let servers = self.endpoints.0.iter().take(bounds.rows);
        LinkView {
            up: self.up.is_some(),
            since_seconds: self.history.since(now).as_secs(),
            server: server.map(|server| bounds.cut(&server.name)),
            carrier: self.up.as_ref().map(|up| up.carrier.name()),
            servers: servers.map(|server| bounds.cut(&server.name)).collect(),
            failed_dials: self.history.failed_dials(),
            last_failure: self.history.last_failure(now),
            certificate: self.keeping.as_ref().and_then(Keeping::describe),
            events: self.history.events().cloned().collect(),
        }
    }
}
