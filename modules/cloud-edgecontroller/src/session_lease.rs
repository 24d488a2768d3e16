//! Whether a session still has its node, as NodeLease reads it from the Lease.

use std::time::Duration;

use beehive::Address;
use contract::nodelease::NodeLeaseMsg;
use fairshare::ReportSender;

use crate::error::NodeReportError;

/// 5 s for NodeLease: a read of a Lease or of the register.
pub(crate) const LEASE_DEADLINE: Duration = Duration::from_secs(5);

/// Asked between the read of an object and its write as it was read: then nobody can have come between.
pub(crate) async fn holds(
    lease: &Address<NodeLeaseMsg>,
    ReportSender { node, session }: &ReportSender,
) -> Result<bool, NodeReportError> {
    let ask = |reply| NodeLeaseMsg::Holds { node: node.clone(), session: *session, reply };
    let asked = lease.ask(LEASE_DEADLINE, ask).await;
    asked.map_err(|error| error.to_string()).flatten().map_err(NodeReportError::Lease)
}
