//! A call of a CSI driver's controller service on its way to the node where the driver is registered: KubeEdge's `csidriver` in the
//! cloud asks, `edgecore` calls the driver and answers.
//!
//! It is a call of the node's kubelet endpoint like any other: `POST /csi/<driver>/csi.v1.Controller/<method>?timeoutSeconds=<n>`, whose
//! body and whose answer are gRPC-Web ([`CONTENT_TYPE`]): CSI's own messages byte by byte, and the driver's status behind them. So it
//! goes by every door that leads to a node: the API server's node proxy, from whichever CloudCore has the node, and CloudCore's
//! socket for programs on its own machine.

use std::time::Duration;

use thiserror::Error;

use crate::csi_node::is_driver_name;

/// The first segment of the path.
pub const SEGMENT: &str = "csi";
/// What goes there and back, by the protocol of gRPC-Web.
pub const CONTENT_TYPE: &str = "application/grpc-web+proto";
/// 256 KiB of a body or an answer. CSI bounds each map to 4 KiB and each text to 128 bytes.
pub const BODY_MAX: usize = 256 << 10;
/// 60 s for the driver where nothing else is asked for, as with KubeEdge.
pub const WITHIN: Duration = Duration::from_secs(60);
/// 10 min at the most.
pub const WITHIN_MAX: Duration = Duration::from_secs(600);
/// What is carried: what a volume of the node needs from elsewhere, and nothing that lists or changes what others have.
pub const METHODS: [&str; 5] = [
    "/csi.v1.Controller/CreateVolume",
    "/csi.v1.Controller/DeleteVolume",
    "/csi.v1.Controller/ControllerPublishVolume",
    "/csi.v1.Controller/ControllerUnpublishVolume",
    "/csi.v1.Controller/ValidateVolumeCapabilities",
];

const TIMEOUT: &str = "timeoutSeconds=";

/// Why a target asks for no call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsiCallError {
    /// The path is another one.
    #[error("a call of a CSI driver goes to /csi/<driver>/csi.v1.Controller/<method>")]
    Path,
    /// The driver has no name that CSI allows.
    #[error("this is not a name that CSI allows a driver")]
    Driver,
    /// The method is not carried.
    #[error("the method is not one that is carried to nodes: {}", METHODS.join(", "))]
    Method,
    /// The time is none.
    #[error("timeoutSeconds is not a number from 1 to 600")]
    Timeout,
}

/// Which driver is called, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsiCall {
    driver: String,
    method: &'static str,
    within: Duration,
}

impl CsiCall {
    /// The call of `method`, as gRPC has its path. `within` counts in whole seconds, begun ones included, up to [`WITHIN_MAX`].
    ///
    /// # Errors
    /// [`CsiCallError::Driver`], [`CsiCallError::Method`].
    pub fn new(driver: &str, method: &str, within: Duration) -> Result<CsiCall, CsiCallError> {
        if !is_driver_name(driver) {
            return Err(CsiCallError::Driver);
        }
        let method = METHODS.into_iter().find(|known| *known == method).ok_or(CsiCallError::Method)?;
        let seconds = within.as_secs() + u64::from(within.subsec_nanos() > 0);
        let within = Duration::from_secs(seconds.max(1)).min(WITHIN_MAX);
        Ok(CsiCall { driver: driver.to_owned(), method, within })
    }

    /// Whether a target leads to a driver, rightly or wrongly.
    pub fn is_target(target: &str) -> bool {
        let path = target.split('?').next().unwrap_or_default();
        path.strip_prefix('/').and_then(|rest| rest.split('/').next()) == Some(SEGMENT)
    }

    /// Reads a target.
    ///
    /// # Errors
    /// See [`CsiCallError`].
    pub fn parse(target: &str) -> Result<CsiCall, CsiCallError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let rest = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(SEGMENT)?.strip_prefix('/'));
        let (driver, _) = rest.and_then(|rest| rest.split_once('/')).ok_or(CsiCallError::Path)?;
        let method = rest.and_then(|rest| rest.get(driver.len()..)).unwrap_or_default();
        let within = match query {
            "" => WITHIN,
            query => {
                let seconds = query.strip_prefix(TIMEOUT).and_then(|text| text.parse::<u64>().ok());
                let within = Duration::from_secs(seconds.ok_or(CsiCallError::Timeout)?);
                Some(within)
                    .filter(|within| (1..=WITHIN_MAX.as_secs()).contains(&within.as_secs()))
                    .ok_or(CsiCallError::Timeout)?
            }
        };
        CsiCall::new(driver, method, within)
    }

    /// Path and query at the node's kubelet endpoint.
    pub fn target(&self) -> String {
        let CsiCall { driver, method, within } = self;
        format!("/{SEGMENT}/{driver}{method}?{TIMEOUT}{}", within.as_secs())
    }

    /// The driver.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// One of [`METHODS`].
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// How long the driver has.
    pub fn within(&self) -> Duration {
        self.within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let call = CsiCall::new("csi.example.com", METHODS[0], Duration::from_millis(9_100)).unwrap();
        assert_eq!(call.target(), "/csi/csi.example.com/csi.v1.Controller/CreateVolume?timeoutSeconds=10");
        assert_eq!(CsiCall::parse(&call.target()).unwrap(), call);
        for method in METHODS {
            let call = CsiCall::new("d", method, Duration::from_secs(3600)).unwrap();
            assert_eq!(call.within(), WITHIN_MAX);
            assert!(CsiCall::is_target(&call.target()));
            assert_eq!(CsiCall::parse(&call.target()).unwrap(), call);
        }
        assert_eq!(CsiCall::new("d", METHODS[1], Duration::ZERO).unwrap().within(), Duration::from_secs(1));
        assert_eq!(CsiCall::parse("/csi/d/csi.v1.Controller/DeleteVolume").unwrap().within(), WITHIN);
    }

    #[test]
    fn what_is_no_call_that_is_carried_is_refused() {
        for (target, why) in [
            ("/csi", CsiCallError::Path),
            ("/csi/d", CsiCallError::Path),
            ("/csix/d/csi.v1.Controller/CreateVolume", CsiCallError::Path),
            ("csi/d/csi.v1.Controller/CreateVolume", CsiCallError::Path),
            ("/csi//csi.v1.Controller/CreateVolume", CsiCallError::Driver),
            ("/csi/../csi.v1.Controller/CreateVolume", CsiCallError::Driver),
            ("/csi/d%2Fe/csi.v1.Controller/CreateVolume", CsiCallError::Driver),
            ("/csi/d/csi.v1.Controller/ListVolumes", CsiCallError::Method),
            ("/csi/d/csi.v1.Node/NodeStageVolume", CsiCallError::Method),
            ("/csi/d/csi.v1.Controller/CreateVolume/", CsiCallError::Method),
            ("/csi/d/csi.v1.Controller/CreateVolume?timeoutSeconds=0", CsiCallError::Timeout),
            ("/csi/d/csi.v1.Controller/CreateVolume?timeoutSeconds=601", CsiCallError::Timeout),
            ("/csi/d/csi.v1.Controller/CreateVolume?timeoutSeconds=1&x=y", CsiCallError::Timeout),
        ] {
            assert_eq!(CsiCall::parse(target), Err(why), "{target}");
        }
        assert!(
            !CsiCall::is_target("/csix/d")
                && !CsiCall::is_target("/pods?/csi/d")
                && CsiCall::is_target("/csi")
        );
    }
}
