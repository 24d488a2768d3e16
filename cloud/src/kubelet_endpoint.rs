//! How this CloudCore is the kubelet endpoint of its nodes, by the settings and by where it runs.

use std::net::IpAddr;
use std::rc::Rc;

use beehive::Env;
use cloud_stream::{Serving, ServingCertificate, Signer};
use config::cloud::CloudCore as Settings;
use config::cloud_stream::AddressChoice;
use nodecalls::{Limits, NodeCalls};
use pki::CurrentAuthorities;
use thiserror::Error;

/// What the chart sets from the pod's own status.
pub(crate) const POD_IP: &str = "POD_IP";
const HOST_IP: &str = "HOST_IP";
/// 4096 calls at once in all: a follower of a log is one.
const CALLS_MAX: usize = 4096;

/// Why it is not.
#[derive(Debug, Error)]
pub enum KubeletEndpointError {
    /// Nodes are to say the host's address, and nobody says which that is.
    #[error(
        "modules.cloudStream.kubeletEndpoint.address is host, and the variable HOST_IP is not set: set it from status.hostIP as the chart does, or name an address with given"
    )]
    NoHostAddress,
    /// A setting that was not validated, or a variable.
    #[error("`{0}` is no IP address: see modules.cloudStream.kubeletEndpoint, POD_IP and HOST_IP")]
    Address(String),
}

fn ip(text: &str) -> Result<IpAddr, KubeletEndpointError> {
    text.parse().map_err(|_| KubeletEndpointError::Address(text.to_owned()))
}

/// The way to the nodes, within the bounds of the settings.
pub(crate) fn calls(settings: &Settings, env: &Env) -> NodeCalls {
    let stream = &settings.modules.cloud_stream;
    let limits = Limits { of_node: stream.calls_per_node, of_user: stream.calls_per_user, all: CALLS_MAX };
    NodeCalls::new(limits, env.metrics().clone(), env.clock())
}

/// Its ports and its certificate, of the CA that signs at the time. `None`: it is switched off. `checked`: whether the API server needs
/// the ports, as it does where it is another process.
///
/// # Errors
/// When the address is not known.
pub(crate) fn serving(
    settings: &Settings,
    authorities: &CurrentAuthorities,
    checked: bool,
) -> Result<Option<Serving>, KubeletEndpointError> {
    let stream = &settings.modules.cloud_stream;
    if !stream.enable {
        return Ok(None);
    }
    let hub = &settings.modules.cloud_hub;
    let advertised: Result<Vec<IpAddr>, KubeletEndpointError> =
        hub.advertise_address.iter().map(|text| ip(text)).collect();
    let advertised = advertised?;
    let endpoint = &stream.kubelet_endpoint;
    let address = match endpoint.address {
        AddressChoice::Node => None,
        AddressChoice::Given => Some(ip(&endpoint.given_address)?),
        AddressChoice::Host => Some(of_environment(HOST_IP)?.ok_or(KubeletEndpointError::NoHostAddress)?),
        AddressChoice::Pod => of_environment(POD_IP)?.or(advertised.first().copied()),
    };
    let addresses = address.into_iter().chain(advertised).collect();
    match address {
        Some(address) => tracing::info!(%address, "the API server finds the nodes' kubelet endpoints here"),
        None => tracing::info!("Nodes say their own address first: lead their ports here"),
    }
    let asked = &endpoint.certificate;
    let signer = (!asked.signer_name.is_empty())
        .then(|| Signer { name: asked.signer_name.clone(), folder: asked.folder.clone() });
    Ok(Some(Serving {
        signer,
        checked,
        bind: ip(&endpoint.bind_address)?,
        first_port: endpoint.first_port,
        api_servers: stream.api_servers.clone(),
        ports: hub.node_limit,
        address,
        certificate: Rc::new(ServingCertificate::new(authorities.clone(), addresses, hub.dns_names.clone())),
    }))
}

pub(crate) fn of_environment(name: &str) -> Result<Option<IpAddr>, KubeletEndpointError> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => ip(&text).map(Some),
        _ => Ok(None),
    }
}
