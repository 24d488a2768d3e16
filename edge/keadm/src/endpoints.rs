//! Which ports of CloudCore a node uses, from what `keadm join` is told. Pure.
//!
//! With KubeEdge the port in `--cloudcore-ipport` is that of the hub's protocol, which `--hub-protocol` names: WebSocket's (10000) unless
//! told. `--certport` is enrolment's (10002). The link here is QUIC, and WebSocket where UDP is blocked, so that it needs both
//! ports: the other one stands beside the given one, as 10001 beside 10000 and the shipped NodePort 30001 beside 30000, or is
//! told.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use config::parse_host_port;

/// What KubeEdge calls the hub's protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum HubProtocol {
    /// WebSocket over TLS, TCP.
    #[default]
    Websocket,
    /// QUIC, UDP.
    Quic,
}

/// What `keadm join` is told of CloudCore's ports.
#[derive(Debug, Clone)]
pub struct CloudPorts {
    /// `host:port`; the port is that of `protocol`.
    pub cloudcore: String,
    /// Whose port stands in `cloudcore`.
    pub protocol: HubProtocol,
    /// QUIC's; by default the one above WebSocket's.
    pub quic: Option<u16>,
    /// WebSocket's; by default the one below QUIC's.
    pub websocket: Option<u16>,
    /// Enrolment's.
    pub cert: u16,
}

/// Where a node dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The host alone.
    pub(crate) host: String,
    /// `host:port` of the link over QUIC.
    pub(crate) quic: String,
    /// `host:port` of the link over WebSocket.
    pub(crate) websocket: String,
    /// The URL of enrolment.
    pub(crate) https: String,
}

impl CloudPorts {
    /// WebSocket's `host:port` and enrolment's port, with QUIC's port where it usually is.
    pub fn new(cloudcore: impl Into<String>, cert: u16) -> Self {
        let (cloudcore, protocol) = (cloudcore.into(), HubProtocol::Websocket);
        CloudPorts { cloudcore, protocol, quic: None, websocket: None, cert }
    }

    /// The rule above.
    ///
    /// # Errors
    /// When `cloudcore` is not host:port, has no port beside it, or its port is enrolment's.
    pub(crate) fn endpoints(&self) -> Result<Endpoints> {
        if self.cloudcore.contains(',') {
            bail!(
                "--cloudcore-ipport is not usable: one CloudCore is joined at; name them all with `--set modules.edgeHub.quic.server=A:10001,B:10001 \
                 --set modules.edgeHub.websocket.server=A:10000,B:10000`"
            );
        }
        let (host, port) = parse_host_port(&self.cloudcore)
            .map_err(|what| anyhow::anyhow!("--cloudcore-ipport is not usable: {what}"))?;
        let (websocket, quic) = match self.protocol {
            HubProtocol::Websocket => {
                let beside = self.quic.or_else(|| port.checked_add(1));
                (port, beside.context("there is no port above --cloudcore-ipport's: give --quicport")?)
            }
            HubProtocol::Quic => {
                let beside = self.websocket.or_else(|| port.checked_sub(1).filter(|port| *port > 0));
                (beside.context("there is no port below --cloudcore-ipport's: give --websocketport")?, port)
            }
        };
        // Both are TCP, so that one of them is wrong; QUIC's is UDP, and may have the same number.
        if websocket == self.cert {
            bail!(
                "{websocket} is told as WebSocket's port (--cloudcore-ipport, --websocketport) and as that of certificates (--certport), and is one of both: \
                 CloudCore's own are 10000 and 10002, the NodePorts 30000 and 30002. No token was spent"
            );
        }
        // 10001 with 10002 for certificates, or 30001: nobody would serve QUIC beside it.
        if self.protocol == HubProtocol::Websocket && self.quic.is_none() && quic == self.cert {
            bail!(
                "--cloudcore-ipport has {websocket}, which is QUIC's port where {quic} is that of certificates: give WebSocket's ({}), or say `--hub-protocol=quic`;                  if it is WebSocket's all the same, name QUIC's (--quicport). No token was spent",
                websocket.saturating_sub(1)
            );
        }
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Ok(Endpoints {
            quic: format!("{shown}:{quic}"),
            websocket: format!("{shown}:{websocket}"),
            https: format!("https://{shown}:{}", self.cert),
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cloudcore: &str) -> CloudPorts {
        CloudPorts::new(cloudcore, 10002)
    }

    fn of(ports: &CloudPorts) -> [String; 3] {
        let Endpoints { quic, websocket, https, .. } = ports.endpoints().unwrap();
        [websocket, quic, https]
    }

    #[test]
    fn the_port_is_websockets_as_with_kubeedge_and_quics_is_beside_it() {
        assert_eq!(of(&told("h:10000")), ["h:10000", "h:10001", "https://h:10002"]);
        let node_port = CloudPorts { cert: 30002, ..told("[fd00::1]:30000") };
        assert_eq!(of(&node_port), ["[fd00::1]:30000", "[fd00::1]:30001", "https://[fd00::1]:30002"]);
        let quic = CloudPorts { protocol: HubProtocol::Quic, ..told("h:10001") };
        assert_eq!(of(&quic), ["h:10000", "h:10001", "https://h:10002"]);
    }

    #[test]
    fn the_other_port_may_be_told() {
        let ports = CloudPorts { quic: Some(7), ..told("h:65535") };
        assert_eq!(of(&ports)[..2], ["h:65535", "h:7"]);
        let ports = CloudPorts { protocol: HubProtocol::Quic, websocket: Some(7), ..told("h:1") };
        assert_eq!(of(&ports)[..2], ["h:7", "h:1"]);
        let beyond = told("h:65535").endpoints().unwrap_err().to_string();
        assert!(beyond.contains("--quicport"), "{beyond}");
        let below = CloudPorts { protocol: HubProtocol::Quic, ..told("h:1") }.endpoints().unwrap_err();
        assert!(below.to_string().contains("--websocketport"), "{below}");
        assert!(told("h").endpoints().unwrap_err().to_string().contains("--cloudcore-ipport"));
    }

    #[test]
    fn the_port_of_certificates_is_none_for_the_link() {
        let error = told("h:10001").endpoints().unwrap_err().to_string();
        assert!(error.contains("QUIC's port") && error.contains("(10000)"), "{error}");
        let named = CloudPorts { quic: Some(9), ..told("h:10001") };
        assert_eq!(of(&named)[..2], ["h:10001", "h:9"]);
        let error = told("h:10002").endpoints().unwrap_err().to_string();
        assert!(error.contains("--certport") && error.contains("10000"), "{error}");
        let quic = CloudPorts { protocol: HubProtocol::Quic, ..told("h:10003") };
        assert!(quic.endpoints().is_err(), "WebSocket's is the one below");
        let one_number = CloudPorts { protocol: HubProtocol::Quic, websocket: Some(7), ..told("h:10002") };
        assert_eq!(of(&one_number)[..2], ["h:7", "h:10002"], "UDP");
    }

    #[test]
    fn a_list_is_told_where_it_goes() {
        let error = told("a:10000,b:10000").endpoints().err().unwrap().to_string();
        assert!(error.contains("--set modules.edgeHub.quic.server="), "{error}");
    }
}
