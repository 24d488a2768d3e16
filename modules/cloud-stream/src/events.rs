//! What happens in CloudStream: each event is one line of the log and one counter.

use beehive::{Env, Metrics};
use contract::NodeName;
use https::Event;

/// A node's port is listened at.
pub(crate) fn endpoint_opened(env: &Env, node: &NodeName, port: u16) {
    env.count("stream_endpoint_opened");
    tracing::info!(%node, port, "the node's kubelet endpoint listens");
}

/// A node's port stays open without a link.
pub(crate) fn endpoint_kept(env: &Env, node: &NodeName, port: u16) {
    env.count("stream_endpoint_kept");
    tracing::info!(%node, port, "the node has no link here: its kubelet endpoint stays open while its Node says it, and tells callers so");
}

/// A node's port is closed.
pub(crate) fn endpoint_closed(env: &Env, node: &NodeName, why: &'static str) {
    env.count("stream_endpoint_closed");
    tracing::info!(%node, why, "the node's kubelet endpoint is closed");
}

/// A port cannot be listened at; the next one is tried.
pub(crate) fn port_refused(env: &Env, node: &NodeName, port: u16, reason: &str) {
    env.count("stream_port_refused");
    tracing::warn!(%node, port, reason, "no kubelet endpoint at this port; the next one is tried: see modules.cloudStream.kubeletEndpoint.firstPort");
}

/// No port is left for a node.
pub(crate) fn no_port(env: &Env, node: &NodeName) {
    env.count("stream_no_port");
    tracing::error!(%node, "no port is free for the node's kubelet endpoint: change modules.cloudStream.kubeletEndpoint.firstPort, or free ports behind it; tried again in a minute");
}

/// The CA of the API server's clients is known, or another one.
pub(crate) fn client_ca_learnt(env: &Env) {
    env.count("stream_client_ca_learnt");
    tracing::info!("the API server's client certificates are known");
}

/// The API server names no CA of its clients.
pub(crate) fn client_ca_missing(env: &Env) {
    env.count("stream_client_ca_missing");
    tracing::info!(
        "kube-system/extension-apiserver-authentication names no client-ca-file: no client certificate is known, callers need bearer tokens"
    );
}

/// The ConfigMap cannot be read; it is tried again, and what was known stays.
pub(crate) fn client_ca_unreadable(env: &Env, reason: &str, is_forbidden: bool) {
    env.count("stream_client_ca_unreadable");
    if is_forbidden {
        tracing::warn!(
            reason,
            "kube-system/extension-apiserver-authentication cannot be read: is CloudCore's account bound to the Role extension-apiserver-authentication-reader?"
        );
    } else {
        tracing::warn!(reason, "kube-system/extension-apiserver-authentication cannot be read now");
    }
}

/// The ConfigMap holds what is no CA; what was known stays.
pub(crate) fn client_ca_unusable(env: &Env, reason: &str) {
    env.count("stream_client_ca_unusable");
    tracing::error!(
        reason,
        "the CA of the API server's clients is not usable; the one that was known is kept"
    );
}

/// The serving certificate was made anew.
pub(crate) fn certificate_renewed(env: &Env) {
    env.count("stream_certificate_renewed");
    tracing::info!("the kubelet endpoint's certificate is made anew");
}

/// The serving certificate could not be made anew; it is tried again.
pub(crate) fn certificate_not_renewed(env: &Env, reason: &str) {
    env.count("stream_certificate_not_renewed");
    tracing::error!(
        reason,
        "the kubelet endpoint's certificate could not be made anew; tried again in an hour"
    );
}

/// Somebody whom nobody knows.
pub(crate) fn unauthenticated(metrics: &Metrics, node: &NodeName, path: &str) {
    metrics.add("stream_unauthenticated", 1);
    tracing::debug!(%node, path, "call without a good credential refused");
}

/// An address shows ever new tokens; the API server is not asked about them.
pub(crate) fn too_many_tokens(metrics: &Metrics, node: &NodeName) {
    metrics.add("stream_too_many_tokens", 1);
    tracing::debug!(%node, "call refused: its address has shown too many tokens that are not known");
}

/// Somebody who may not.
pub(crate) fn forbidden(metrics: &Metrics, node: &NodeName, user: &str, path: &str) {
    metrics.add("stream_forbidden", 1);
    tracing::info!(%node, user, path, "call refused: the user may not");
}

/// Nobody could say who somebody is, or what he may.
pub(crate) fn review_failed(metrics: &Metrics, node: &NodeName, reason: &str) {
    metrics.add("stream_review_failed", 1);
    tracing::warn!(%node, reason, "call refused: the API server has not said whether it may be made");
}

/// The name of what happened to a connection.
pub(crate) fn connection(metrics: &Metrics, event: Event) {
    let name = match event {
        Event::Refused => "stream_connection_refused",
        Event::Displaced => "stream_connection_displaced",
        Event::HandshakeFailed => "stream_handshake_failed",
        Event::AnswerLate => "stream_answer_late",
        Event::Panicked => "stream_handler_panicked",
        Event::AcceptFailed => "stream_accept_failed",
    };
    metrics.add(name, 1);
}

/// The watch of Nodes broke off; it is taken up again. Before its first list no node has a kubelet endpoint here.
pub(crate) fn nodes_unread(env: &Env, reason: &str) {
    env.count("stream_nodes_unread");
    tracing::warn!(reason, "which ports Nodes say cannot be read now; asked for again");
}

/// A certificate was asked for.
pub(crate) fn certificate_asked_for(env: &Env, name: &str, signer: &str) {
    env.count("stream_certificate_asked_for");
    tracing::info!(
        name,
        signer,
        "the kubelet endpoint's certificate is asked for by a CertificateSigningRequest"
    );
}

/// A certificate was signed, and is shown from now on.
pub(crate) fn certificate_signed(env: &Env, signer: &str) {
    env.count("stream_certificate_signed");
    tracing::info!(signer, "the kubelet endpoint's certificate was signed, and is shown from now on");
}

/// There is no certificate of the signer's, or no new one: said when that changes, and every ten minutes.
pub(crate) fn certificate_unsigned(env: &Env, words: &str) {
    env.count("stream_certificate_unsigned");
    tracing::warn!(check = "KubeletEndpointCertificate", "{words}");
}

/// A certificate that was kept is not shown any more.
pub(crate) fn kept_certificate_unfit(env: &Env, why: &str) {
    env.count("stream_kept_certificate_unfit");
    tracing::info!(why, "the certificate that was kept is not shown, and another is asked for");
}

/// A certificate is shown, and is gone at the next start.
pub(crate) fn certificate_unkept(env: &Env, reason: &str) {
    env.count("stream_certificate_unkept");
    tracing::error!(reason, "the certificate that was signed cannot be kept");
}

/// The signer's certificate has ended before there was another.
pub(crate) fn signed_certificate_ended(env: &Env) {
    env.count("stream_signed_certificate_ended");
    tracing::error!("the signer's certificate has ended: that of CloudCore's own CA is shown");
}

/// The API server gets through again.
pub(crate) fn endpoint_reached(env: &Env) {
    env.count("stream_endpoint_reached");
    tracing::info!(check = "KubeletEndpointReachable", "the API server reaches the kubelet endpoints again");
}

/// The API server does not get through.
pub(crate) fn endpoint_unreached(env: &Env, node: &NodeName, words: &str) {
    env.count("stream_endpoint_unreached");
    tracing::error!(check = "KubeletEndpointReachable", %node, "{words}");
}

/// Whether the API server gets through is not asked.
pub(crate) fn endpoint_not_checked(env: &Env) {
    env.count("stream_endpoint_not_checked");
    tracing::info!(
        check = "KubeletEndpointReachable",
        "no API server has called a kubelet endpoint yet, and CloudCore may not have one called: name an edge node in rbac.endpointCheckNodes (keadm init --force, or helm upgrade), or try `kubectl get --raw /api/v1/nodes/NODE/proxy/healthz`"
    );
}
