//! `modules.router` of `cloudcore.yaml`: rules, and where the REST ends of them are.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Defect;
use crate::load;

/// 64 networks beside those that every rule may reach.
const ALLOWED_MAX: usize = 64;

/// Rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Router {
    /// Whether rules have an effect.
    pub enable: bool,
    /// An IP address of this host, or 0.0.0.0, at which HTTP clients call what rules from `rest` lead to nodes.
    pub address: String,
    /// The port; 0: there is no such door.
    pub port: u16,
    /// How long a call waits for a node, in seconds: 1 to 3600.
    pub rest_timeout: u32,
    /// The certificate shown there and its key, PEM; both empty: one of CloudCore's own CA.
    pub tls_cert_file: PathBuf,
    /// See `tls_cert_file`.
    pub tls_private_key_file: PathBuf,
    /// HTTP without TLS, as KubeEdge has it.
    #[serde(rename = "plainHTTP")]
    pub plain_http: bool,
    /// Bearer tokens, one a line, of which a caller shows one. Read again when it changes.
    pub token_file: PathBuf,
    /// Whoever reaches the port may call, as with KubeEdge.
    pub allow_anonymous: bool,
    /// CAs beside the system's by which the certificates of rules' targets are judged, PEM; empty: none.
    #[serde(rename = "targetCAFile")]
    pub target_ca_file: PathBuf,
    /// Networks (`ADDRESS/BITS`) that rules may lead to although they are closed to them: loopback, link-local and the like.
    pub allowed_targets: Vec<String>,
    /// Where other CloudCores pass calls on to this one.
    pub peers: Peers,
}

/// Where other CloudCores of the cluster reach this one, for calls of nodes that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peers {
    /// An IP address of this host, or 0.0.0.0, at which they are listened for.
    pub bind_address: String,
    /// The port; 0: calls are neither passed on nor taken from others.
    pub port: u16,
    /// The IP address at which they reach it; empty: the variable POD_IP, else the first of `modules.cloudHub.advertiseAddress`.
    pub address: String,
}

impl Default for Peers {
    fn default() -> Self {
        Peers { bind_address: "0.0.0.0".to_owned(), port: 9444, address: String::new() }
    }
}

impl Default for Router {
    fn default() -> Self {
        Router {
            enable: false,
            address: "0.0.0.0".to_owned(),
            port: 9443,
            rest_timeout: 60,
            tls_cert_file: PathBuf::new(),
            tls_private_key_file: PathBuf::new(),
            plain_http: false,
            token_file: PathBuf::new(),
            allow_anonymous: false,
            target_ca_file: PathBuf::new(),
            allowed_targets: Vec::new(),
            peers: Peers::default(),
        }
    }
}

impl Router {
    /// Whether the REST ends of rules are served.
    pub fn has_door(&self) -> bool {
        self.enable && self.port != 0
    }

    /// Whether calls are passed on to other CloudCores, and taken from them.
    pub fn has_peers(&self) -> bool {
        self.enable && self.peers.port != 0
    }

    fn check_peers(&self, defects: &mut Vec<Defect>) {
        let Peers { bind_address, port, address } = &self.peers;
        load::check_ip("modules.router.peers.bindAddress", bind_address, defects);
        if !address.is_empty() {
            load::check_ip("modules.router.peers.address", address, defects);
        }
        if address.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            let what =
                format!("is `{address}`, which leads to no machine: name one at which others reach this");
            defects.push(Defect::new("modules.router.peers.address", what));
        }
        if self.has_door() && self.has_peers() && *port == self.port {
            let what = "is that of modules.router.port: other CloudCores come to a port of their own";
            defects.push(Defect::new("modules.router.peers.port", what));
        }
    }

    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        load::check_ip("modules.router.address", &self.address, defects);
        if !(1..=3600).contains(&self.rest_timeout) {
            defects
                .push(Defect::new("modules.router.restTimeout", "is not a number of seconds from 1 to 3600"));
        }
        let has_certificate = !self.tls_cert_file.as_os_str().is_empty();
        let has_key = !self.tls_private_key_file.as_os_str().is_empty();
        if has_certificate != has_key {
            let key = if has_key { "modules.router.tlsCertFile" } else { "modules.router.tlsPrivateKeyFile" };
            defects.push(Defect::new(key, "is empty: certificate and key belong together"));
        }
        if self.plain_http && (has_certificate || has_key) {
            let what = "is true, and so tlsCertFile and tlsPrivateKeyFile would have no effect: remove one or the other";
            defects.push(Defect::new("modules.router.plainHTTP", what));
        }
        let has_tokens = !self.token_file.as_os_str().is_empty();
        if self.has_door() && !has_tokens && !self.allow_anonymous {
            let what = "is empty, so nobody could call what rules lead to nodes: name a file of bearer tokens; or write \
                        allowAnonymous: true, as it is with KubeEdge; or port: 0 for rules that begin on nodes alone";
            defects.push(Defect::new("modules.router.tokenFile", what));
        }
        if has_tokens && self.allow_anonymous {
            let what = "is true, and so tokenFile would have no effect: remove one or the other";
            defects.push(Defect::new("modules.router.allowAnonymous", what));
        }
        self.check_peers(defects);
        for (key, path) in [
            ("tlsCertFile", &self.tls_cert_file),
            ("tlsPrivateKeyFile", &self.tls_private_key_file),
            ("tokenFile", &self.token_file),
            ("targetCAFile", &self.target_ca_file),
        ] {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                let what = format!("is `{}`, not an absolute path", path.display());
                defects.push(Defect::new(&format!("modules.router.{key}"), what));
            }
        }
        if self.allowed_targets.len() > ALLOWED_MAX {
            let what = format!("has {} networks; at most {ALLOWED_MAX}", self.allowed_targets.len());
            defects.push(Defect::new("modules.router.allowedTargets", what));
        }
        for text in &self.allowed_targets {
            if targets::Network::parse(text).is_none() {
                let what = format!("has `{text}`, which is not ADDRESS/BITS, as 127.0.0.0/8 or fd00::/8");
                defects.push(Defect::new("modules.router.allowedTargets", what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl FnOnce(&mut Router)) -> Vec<String> {
        let mut router = Router { enable: true, token_file: "/t".into(), ..Router::default() };
        change(&mut router);
        let mut defects = Vec::new();
        router.check(&mut defects);
        defects
            .into_iter()
            .map(|defect| defect.key.trim_start_matches("modules.router.").to_owned())
            .collect()
    }

    #[test]
    fn nobody_is_served_by_chance_without_a_token() {
        assert_eq!(told(|_| ()), [] as [&str; 0]);
        assert_eq!(told(|router| router.token_file = PathBuf::new()), ["tokenFile"]);
        assert_eq!(told(|router| (router.token_file, router.port) = (PathBuf::new(), 0)), [] as [&str; 0]);
        assert_eq!(
            told(|router| (router.token_file, router.allow_anonymous) = (PathBuf::new(), true)),
            [] as [&str; 0]
        );
        assert_eq!(told(|router| router.allow_anonymous = true), ["allowAnonymous"]);
        let mut off = Vec::new();
        Router::default().check(&mut off);
        assert_eq!(off, []);
    }

    #[test]
    fn where_other_cloudcores_come_is_a_place_of_its_own() {
        let with = |port, address: &str| {
            told(|router| (router.peers.port, router.peers.address) = (port, address.to_owned()))
        };
        assert_eq!(with(9444, "192.0.2.1"), [] as [&str; 0]);
        assert_eq!((with(9443, ""), with(0, "")), (vec!["peers.port".to_owned()], Vec::new()));
        for wrong in ["0.0.0.0", "::", "224.0.0.1", "cloud.example", "192.0.2.1:9444"] {
            assert_eq!(with(9444, wrong), ["peers.address"], "{wrong}");
        }
        assert_eq!(told(|router| router.peers.bind_address = "x".to_owned()), ["peers.bindAddress"]);
        let router = Router { enable: true, ..Router::default() };
        assert!(router.has_peers() && !Router::default().has_peers());
    }

    #[test]
    fn what_could_not_be_done_is_told() {
        assert_eq!(told(|router| router.tls_cert_file = "/c".into()), ["tlsPrivateKeyFile"]);
        assert_eq!(told(|router| router.tls_private_key_file = "/k".into()), ["tlsCertFile"]);
        assert_eq!(told(|router| router.token_file = "t".into()), ["tokenFile"]);
        assert_eq!(told(|router| router.rest_timeout = 0), ["restTimeout"]);
        let all = |router: &mut Router| {
            (router.plain_http, router.tls_cert_file) = (true, "/c".into());
            router.tls_private_key_file = "/k".into();
        };
        assert_eq!(told(all), ["plainHTTP"]);
        let networks = ["10.0.0.0/8", "::1/128", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.1/8"];
        assert_eq!(
            told(|router| router.allowed_targets = networks.map(str::to_owned).into()),
            ["allowedTargets"; 4]
        );
    }
}
