//! Why CloudCore did not start.

use std::net::SocketAddr;

use beehive::WiringError;
use beehive::link::quic::EndpointError;
use cloud_hub::SecretError;
use cloud_router::DoorError;
use https::TlsError;
use kubewatch::ReadAsError;
use thiserror::Error;

use crate::crds::CrdError;
use crate::kubelet_endpoint::KubeletEndpointError;
use crate::monitor::MonitorError;

/// Why CloudCore did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The API server cannot be asked, and waiting does not mend it.
    #[error(transparent)]
    ApiServer(#[from] ApiServerError),
    /// A custom resource is not there.
    #[error(transparent)]
    Definitions(#[from] CrdError),
    /// What pods need cannot be read.
    #[error("Secrets and config maps")]
    ReadAs(#[from] ReadAsError),
    /// The CA or a Secret is not there.
    #[error("certificates")]
    Secrets(#[from] SecretError),
    /// CloudCore's certificate is not usable.
    #[error("certificates")]
    Certificate(#[from] TlsError),
    /// A port is taken, or its address is not of this machine.
    #[error("cannot listen at {address} for {what}: free the port, or change {key}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// The setting.
        key: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The link does not listen.
    #[error("the link's port (modules.cloudHub.quic)")]
    Link(#[from] EndpointError),
    /// The admin endpoint does not listen.
    #[error("the admin endpoint")]
    Monitor(#[from] MonitorError),
    /// The map is wrong.
    #[error("wiring")]
    Wiring(#[from] WiringError),
    /// It cannot be the kubelet endpoint of its nodes.
    #[error("the nodes' kubelet endpoints (modules.cloudStream)")]
    KubeletEndpoint(#[from] KubeletEndpointError),
    /// HTTP clients could not call rules.
    #[error("the door for rules (modules.router)")]
    RuleDoor(#[from] DoorError),
    /// The stand-alone API's kubeconfig cannot be written.
    #[error("the stand-alone API")]
    StandAlone(#[source] Box<cloud_apiserver::StartError>),
    /// A setting that was not validated.
    #[error("setting `{0}` is no IP address")]
    Address(String),
}

/// What keeps CloudCore from the API server until somebody acts.
#[derive(Debug, Error)]
pub enum ApiServerError {
    /// It does not prove that it is the one.
    #[error(
        "the API server {server} shows a certificate that CloudCore does not trust: look at certificate-authority and server (or tls-server-name) of the kubeconfig, and at this machine's clock"
    )]
    ServerCertificate {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// It ends the handshake.
    #[error(
        "the API server {server} refuses CloudCore's TLS handshake: look at client-certificate and client-key of the kubeconfig"
    )]
    ClientCertificate {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// 401.
    #[error(
        "the API server {server} does not know CloudCore (401, {answer}): the token or client certificate of the kubeconfig has expired, or is of another cluster"
    )]
    Unauthorized {
        /// Which.
        server: String,
        /// What it says.
        answer: String,
    },
    /// 403.
    #[error(
        "the API server {server} forbids CloudCore's account what it starts with (403, {answer}): install with `keadm init --force` or `helm upgrade` of this release"
    )]
    Forbidden {
        /// Which.
        server: String,
        /// What it says.
        answer: String,
    },
    /// What a program or provider of the kubeconfig gives as a token is none. A written one and a file's are looked at before.
    #[error(
        "what the kubeconfig's user (exec, auth-provider) gives as the token for the API server {server} fits in no HTTP header: look at what that program prints"
    )]
    NoToken {
        /// Which.
        server: String,
    },
    /// Another answer that no waiting changes.
    #[error("{what}: the API server {server} answers {code}, {answer}")]
    Refused {
        /// What was not done, with its cure.
        what: String,
        /// Which.
        server: String,
        /// The code of its answer.
        code: u16,
        /// What it says.
        answer: String,
    },
}
