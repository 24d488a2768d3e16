//! What DeviceTwin counts and says: a named event is one line of the log and one counter.

use beehive::Env;
use contract::ids::DeviceName;

use crate::identity::MapperIdentity;

/// Something worth a line.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// Objects that changed were not taken over; tried again.
    ObjectsNotTaken { reason: &'a str },
    /// An object of the cloud that is not understood: it stays as it was before.
    ObjectNotUnderstood { object: &'a str, reason: &'a str },
    /// A row of the store that a newer release wrote: it is left out.
    RowOfNewerRelease { row: &'a str, version: u32 },
    /// A row of the store that is not understood: it is left out.
    RowBroken { row: &'a str, error: &'a serde_json::Error },
    /// A mapper has a protocol from now on.
    MapperRegistered { name: &'a str, protocol: &'a str, identity: &'a MapperIdentity, devices: usize },
    /// A protocol's mapper is gone, and another one takes its place.
    MapperReplaced { protocol: &'a str, before: &'a MapperIdentity, after: &'a MapperIdentity },
    /// A mapper was not reached or not willing; tried again.
    PushFailed { protocol: &'a str, mapper: &'a str, reason: &'a str },
    /// What a mapper has was not kept: after a restart it hears more than it has to.
    PushNotKept { protocol: &'a str, reason: &'a str },
    /// A property that neither a device nor its model has, and that was wrong: nobody tells of it any more.
    StrangerForgotten { device: &'a DeviceName, property: &'a str },
    /// Nothing more is heard of a device.
    FellSilent { device: &'a DeviceName, properties: usize, state: bool },
    /// A method of a device was called, or was not.
    MethodCalled { device: &'a DeviceName, method: &'a str, by: &'a str, state: &'a str, message: &'a str },
    /// A mapper reported a state that is none.
    StateRefused { device: &'a DeviceName, said: &'a str },
    /// A mapper's report of which nothing is taken.
    ReportRefused { device: &'a DeviceName, reason: &'a str },
    /// A value that was reported of a property, and is not taken. Said when it is not so already.
    ValueRefused { device: &'a DeviceName, property: &'a str, reason: &'a str, is_said: bool },
    /// A call over DMI that was not the caller's to make.
    CallDenied { caller: &'a str, reason: &'a str, is_said: bool },
    /// More of them followed.
    CallsDenied { caller: &'a str, more: u64, reason: &'a str },
    /// The broker does not keep up.
    PublicationDropped { dropped: u64 },
    /// Reports that had waited are not kept; tried again.
    ReportsNotKept { reason: &'a str },
    /// Mappers cannot reach this node; tried again.
    DmiNotServed { folder: &'a str, reason: &'a str },
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Event::ObjectsNotTaken { .. } => "devicetwin_objects_not_taken",
            Event::ObjectNotUnderstood { .. } => "devicetwin_object_not_understood",
            Event::RowOfNewerRelease { .. } | Event::RowBroken { .. } => "devicetwin_row_left_out",
            Event::MapperRegistered { .. } => "devicetwin_mapper_registered",
            Event::MapperReplaced { .. } => "devicetwin_mapper_replaced",
            Event::PushFailed { .. } => "devicetwin_push_failed",
            Event::PushNotKept { .. } => "devicetwin_push_not_kept",
            Event::StrangerForgotten { .. } => "devicetwin_stranger_forgotten",
            Event::FellSilent { .. } => "devicetwin_fell_silent",
            Event::MethodCalled { .. } => "devicetwin_method_called",
            Event::StateRefused { .. } => "devicetwin_state_refused",
            Event::ReportRefused { .. } => "devicetwin_report_refused",
            Event::ValueRefused { .. } => "devicetwin_value_refused",
            Event::CallDenied { .. } => "devicetwin_call_denied",
            Event::CallsDenied { .. } => "devicetwin_calls_denied",
            Event::PublicationDropped { .. } => "devicetwin_publication_dropped",
            Event::ReportsNotKept { .. } => "devicetwin_reports_not_kept",
            Event::DmiNotServed { .. } => "devicetwin_dmi_not_served",
        }
    }

    /// Says and counts it. What callers can make happen as often as they like is said at each doubling.
    pub(crate) fn happened(self, env: &Env) {
        env.count(self.name());
        match self {
            Event::ObjectsNotTaken { reason } => {
                tracing::error!(reason, "devices not taken over from the store");
            }
            Event::ObjectNotUnderstood { object, reason } => {
                tracing::warn!(object, reason, "object is not understood and is left out");
            }
            Event::RowOfNewerRelease { row, version } => {
                tracing::warn!(row, version, "row of the store is of a newer release and is left out");
            }
            Event::RowBroken { row, error } => {
                tracing::error!(row, %error, "row of the store is not understood and is left out");
            }
            Event::MapperRegistered { name, protocol, identity, devices } => {
                tracing::info!(mapper = name, protocol, %identity, devices, "mapper registered");
            }
            Event::MapperReplaced { protocol, before, after } => {
                tracing::warn!(protocol, %before, %after, "a protocol's mapper is gone; another takes its place");
            }
            Event::PushFailed { protocol, mapper, reason } => {
                tracing::warn!(protocol, mapper, reason, "mapper not reached or not willing; tried again");
            }
            Event::PushNotKept { protocol, reason } => {
                tracing::warn!(protocol, reason, "what the mapper has was not kept");
            }
            Event::StrangerForgotten { device, property } => {
                tracing::info!(%device, property, "a property that nobody has is told of no more, and is forgotten");
            }
            Event::FellSilent { device, properties, state } => {
                tracing::info!(%device, properties, state, "nothing more is heard of a device");
            }
            Event::MethodCalled { device, method, by, state, message } => {
                tracing::info!(%device, method, by, state, message, "a method of a device was called");
            }
            // The log thins it out.
            Event::StateRefused { device, said } => {
                tracing::warn!(%device, said, "a mapper reported a state that is none");
            }
            // The log thins it out.
            Event::ReportRefused { device, reason } => {
                tracing::warn!(%device, reason, "nothing of a mapper's report is taken");
            }
            Event::ValueRefused { device, property, reason, is_said } => {
                if is_said {
                    tracing::warn!(%device, property, reason, "a reported value is not taken");
                }
            }
            Event::CallDenied { caller, reason, is_said } => {
                if is_said {
                    tracing::warn!(caller, reason, "a call over DMI was denied");
                }
            }
            Event::CallsDenied { caller, more, reason } => {
                tracing::warn!(
                    caller,
                    more,
                    reason,
                    "more calls over DMI were denied; the reason is the last one's"
                );
            }
            Event::PublicationDropped { dropped } => {
                if dropped.is_power_of_two() {
                    tracing::warn!(dropped, "the broker does not keep up; publications are dropped");
                }
            }
            Event::ReportsNotKept { reason } => {
                tracing::warn!(reason, "reports on devices that have waited are not kept; tried again");
            }
            Event::DmiNotServed { folder, reason } => {
                tracing::error!(folder, reason, "mappers cannot reach this node");
            }
        }
    }
}
