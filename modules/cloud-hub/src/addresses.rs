//! Whom the hub speaks to.

use beehive::Address;
use contract::cloudstream::CloudStreamMsg;
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::nodelease::NodeLeaseMsg;
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;

/// Whom the hub tells, and whom its nodes may reach.
#[derive(Clone)]
pub struct Addresses {
    /// NodeLease. It is asked, too: it claims the nodes.
    pub lease: Address<NodeLeaseMsg>,
    /// SyncController.
    pub sync: Address<SyncMsg>,
    /// EdgeController.
    pub edge: Address<EdgeControllerMsg>,
    /// DeviceController.
    pub device: Address<DeviceControllerMsg>,
    /// CloudStream.
    pub stream: Address<CloudStreamMsg>,
    /// CloudRouter.
    pub router: Address<RouterMsg>,
    /// The task manager.
    pub tasks: Address<CloudTaskMsg>,
}
