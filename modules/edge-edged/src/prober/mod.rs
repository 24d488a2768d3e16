//! The kinds of check that probes and hooks make: a command in a container, HTTP, TCP, gRPC. With the kubelet's words.

mod dial;
mod exec;
mod grpc;
mod http;
mod tcp;
mod url;

use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use cri::Runtime;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::runtime::expansion::TooLong;
pub(crate) use dial::{LOOKUPS_AT_ONCE, PodDialer};
pub(crate) use exec::{command_failed, static_command};

pub(crate) use http::{HttpFault, HttpRequest, follow};

/// Of an answer so much is read (Kubernetes: `maxRespBodyLength`, `maxReadLength`).
const BODY_MAX: usize = 10 << 10;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    /// Counts as success, with an event.
    Warning(String),
    Failure(String),
}

/// What one try came to. An error is no finding about the container: it is tried again, and counts for nothing.
pub(crate) type Tried = Result<Answer, TryError>;

/// Why a try came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TryError {
    /// The result that a kubelet names with it: `unknown`, or `failure` of an answer that broke off (pkg/probe/http/http.go:
    /// `return probe.Failure, "", err`).
    pub(crate) state: &'static str,
    pub(crate) why: String,
}

impl From<String> for TryError {
    fn from(why: String) -> Self {
        TryError { state: "unknown", why }
    }
}

/// What a probe does, worked out once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    Exec {
        command: Result<Vec<String>, TooLong>,
    },
    Http {
        action: Box<HTTPGetAction>,
        port: Result<u16, String>,
    },
    Tcp {
        host: Option<String>,
        port: Result<u16, String>,
    },
    Grpc {
        port: u16,
        service: String,
    },
    /// A probe that says nothing of what to do.
    Missing,
}

impl Check {
    /// What a container's probe does.
    pub(crate) fn of(probe: &Probe, container: &Container) -> Check {
        if let Some(exec) = &probe.exec {
            return Check::Exec { command: static_command(exec.command.as_deref(), container) };
        }
        if let Some(action) = &probe.http_get {
            let port = port_of(&action.port, container);
            return Check::Http { action: Box::new(action.clone()), port };
        }
        if let Some(action) = &probe.tcp_socket {
            return Check::Tcp { host: action.host.clone(), port: port_of(&action.port, container) };
        }
        match &probe.grpc {
            Some(grpc) => Check::Grpc {
                port: u16::try_from(grpc.port).unwrap_or(0),
                service: grpc.service.clone().unwrap_or_default(),
            },
            None => Check::Missing,
        }
    }

    /// Makes the check once, within `limit`. `ip`: the pod's, for checks that name no host.
    pub(crate) async fn make(
        &self,
        (env, dialer): (&Env, PodDialer<'_>),
        runtime: &Arc<dyn Runtime>,
        container: &str,
        ip: &str,
        limit: Duration,
    ) -> Tried {
        match self {
            Check::Exec { command } => {
                let command = command.as_ref().map_err(ToString::to_string)?;
                exec::probe(runtime, container, command, limit).await
            }
            Check::Http { action, port } => {
                let request = HttpRequest::new(action, port.clone()?, ip, "kube-probe")?;
                http::probe(env, dialer, &request, limit).await
            }
            Check::Tcp { host, port } => {
                let host = host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
                tcp::probe(env, dialer, host, port.clone()?, limit).await
            }
            Check::Grpc { port, service } => Ok(grpc::probe(env, ip, *port, service, limit).await),
            Check::Missing => Err("missing probe handler".to_owned().into()),
        }
    }
}

/// A port by its number or by its name in the container.
pub(crate) fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("port {name} not found"))?,
            }
        }
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// `host:port`, an IPv6 address in brackets.
fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What the system said, in Go's words: `connection refused`.
fn system_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Why a connection could not be made, in Go's words.
fn dial_error(address: &str, error: &std::io::Error) -> String {
    // A name that nobody knows is no error of the system's call.
    let at = if error.raw_os_error().is_some() { "connect: " } else { "" };
    format!("dial tcp {address}: {at}{}", system_error(error))
}

/// Kubernetes bounds what ends up in events; a container chooses what it says.
fn cut(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_MAX)]).into_owned();
    text.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_is_a_number_or_the_name_of_one() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        let port = |port: serde_json::Value| port_of(&serde_json::from_value(port).unwrap(), &container);
        assert_eq!(port(json!(80)), Ok(80));
        assert_eq!(port(json!("web")), Ok(8080));
        assert_eq!(port(json!("81")), Ok(81));
        assert_eq!(port(json!("dns")), Err("port dns not found".to_owned()));
        assert_eq!(port(json!(0)), Err("invalid port number: 0".to_owned()));
        assert_eq!(port(json!(70000)), Err("invalid port number: 70000".to_owned()));
    }

    #[test]
    fn errors_are_told_in_gos_words() {
        let refused = std::io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(dial_error("10.0.0.5:80", &refused), "dial tcp 10.0.0.5:80: connect: connection refused");
        assert_eq!(join("fd00::1", 80), "[fd00::1]:80");
    }
}
