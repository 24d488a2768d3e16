//! What a server is asked to look at, as monitored items of a subscription (Part 4 §5.13).

use std::collections::BTreeMap;

use opcua_client::Session;
use opcua_types::{
    DataChangeFilter, DataChangeTrigger, Error, ExtensionObject, MonitoredItemCreateRequest, MonitoringMode,
    MonitoringParameters, NodeId, ReadValueId, TimestampsToReturn,
};

use crate::status;
use crate::visitor::{Monitoring, Visitor};

/// An absolute deadband (Part 4 §7.22.2).
const ABSOLUTE: u32 = 1;

/// A property that is to be sent: its place among those of the device, and where it is.
pub(crate) struct Item {
    pub(crate) place: usize,
    pub(crate) node: NodeId,
    pub(crate) visitor: Visitor,
    pub(crate) monitoring: Monitoring,
}

/// Those that the server monitors, by their places, with its numbers for them.
pub(crate) async fn create_items(
    session: &Session,
    id: u32,
    items: &[&Item],
    at_once: &mut usize,
) -> Result<BTreeMap<usize, u32>, Error> {
    let (mut rest, mut ids) = (items, BTreeMap::new());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*at_once));
        let requests = now.iter().map(|item| request(item)).collect();
        match session.create_monitored_items(id, TimestampsToReturn::Neither, requests).await {
            Ok(created) => {
                for (item, created) in now.iter().zip(created) {
                    let code = created.result.status_code;
                    if code.is_good() {
                        ids.insert(item.place, created.result.monitored_item_id);
                    } else if item.monitoring.deadband.is_some() {
                        // Read in its cycle it would have none.
                        tracing::warn!(node = %item.node, reason = status::named(code), "the server takes no `deadband` here: every change is told");
                    } else {
                        tracing::debug!(node = %item.node, reason = status::named(code), "not monitored; it is read in its cycle");
                    }
                }
                rest = later;
            }
            Err(error) if status::is_too_large(error.status()) && now.len() > 1 => *at_once = now.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(ids)
}

fn request(item: &Item) -> MonitoredItemCreateRequest {
    let filter = item.monitoring.deadband.map(|deadband_value| {
        ExtensionObject::from_message(DataChangeFilter {
            trigger: DataChangeTrigger::StatusValue,
            deadband_type: ABSOLUTE,
            deadband_value,
        })
    });
    let parameters = MonitoringParameters {
        client_handle: handle(item.place),
        sampling_interval: item.monitoring.sampling.as_secs_f64() * 1000.0,
        filter: filter.unwrap_or_else(ExtensionObject::null),
        queue_size: item.monitoring.queue,
        discard_oldest: true,
    };
    let node =
        ReadValueId { index_range: item.visitor.index.clone(), ..ReadValueId::from(item.node.clone()) };
    MonitoredItemCreateRequest::new(node, MonitoringMode::Reporting, parameters)
}

/// Handles begin with 1: the library gives one of its own to what has 0.
pub(crate) fn handle(place: usize) -> u32 {
    u32::try_from(place).map_or(u32::MAX, |place| place.saturating_add(1))
}
