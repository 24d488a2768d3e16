//! The capabilities of our mailboxes: what each understands, as the hello of whoever opens it says
//! ([`beehive::link::Capabilities`]). A name is never used for anything else again.

/// Batches that are deflated.
pub const DEFLATE: &str = "deflate";
/// Questions for tokens.
pub const TOKENS: &str = "tokens";
/// Telemetry.
pub const TELEMETRY: &str = "telemetry";
/// What clients publish for rules.
pub const RULE_UPLOADS: &str = "rule-uploads";
/// Calls of applications on a node that a rule leads to the cloud.
pub const RULE_CALLS: &str = "rule-calls";
/// Reports of nodes.
pub const REPORT_NODE: &str = "report.node";
/// Reports of the status of pods.
pub const REPORT_POD_STATUS: &str = "report.pod-status";
/// Reports that a pod is gone.
pub const REPORT_POD_GONE: &str = "report.pod-gone";
/// Events.
pub const REPORT_EVENT: &str = "report.event";
/// Reports of the mirrors of static pods.
pub const REPORT_MIRROR_POD: &str = "report.mirror-pod";
/// Reports of claims whose volumes are made larger.
pub const REPORT_CLAIM_EXPANSION: &str = "report.claim-expansion";
/// Reports of a twin's property.
pub const REPORT_TWIN: &str = "report.twin";
/// Reports of a device's state.
pub const REPORT_DEVICE_STATE: &str = "report.device-state";
/// Reports of what is wrong with a device.
pub const REPORT_DEVICE_CONDITIONS: &str = "report.device-conditions";

/// Reports of the calls of a device's methods.
pub const REPORT_METHOD_CALLS: &str = "report.method-calls";
/// Reports of a node's parts of jobs.
pub const REPORT_NODE_TASK: &str = "report.node-task";
/// Calls of a device's methods.
pub const CALL_METHOD: &str = "call-method";

/// Certificates are renewed over the link.
pub const RENEW_CERTIFICATE: &str = "renew-certificate";
/// Nothing but that: the certificate that the node has shown has ended.
pub const RENEWAL_ONLY: &str = "renewal-only";
/// By what the cloud is known, and where it is.
pub const TRUST: &str = "trust";

/// What CloudHub of this release understands.
pub const OF_CLOUD_HUB: &[&str] = &[RENEW_CERTIFICATE];
/// What the EdgeHub of a node of this release understands.
pub const OF_EDGE_HUB: &[&str] = &[TRUST];
/// What the edge controller of this release understands.
pub const OF_EDGE_CONTROLLER: &[&str] = &[
    DEFLATE,
    TOKENS,
    REPORT_NODE,
    REPORT_POD_STATUS,
    REPORT_POD_GONE,
    REPORT_EVENT,
    REPORT_MIRROR_POD,
    REPORT_CLAIM_EXPANSION,
];
/// What the device controller of this release understands.
pub const OF_DEVICE_CONTROLLER: &[&str] =
    &[DEFLATE, REPORT_TWIN, REPORT_DEVICE_STATE, REPORT_DEVICE_CONDITIONS, REPORT_METHOD_CALLS];
/// What the task manager of this release understands.
pub const OF_TASK_MANAGER: &[&str] = &[DEFLATE, REPORT_NODE_TASK];
/// What the DeviceTwin of a node of this release understands.
pub const OF_DEVICE_TWIN: &[&str] = &[CALL_METHOD];
/// What the router of this release understands.
pub const OF_ROUTER: &[&str] = &[DEFLATE, TELEMETRY, RULE_UPLOADS, RULE_CALLS];
