//! `tracing`, as KubeletConfiguration has it: where traces go, and how many. `commonConfig.tracing` of `cloudcore.yaml`,
//! `modules.edged.tailoredKubeletConfig.tracing` of `edgecore.yaml`, where it is about all of edgecore.

use serde::{Deserialize, Serialize};

use crate::error::Defect;
use crate::load::parse_host_port;

/// 4318: OTLP over HTTP.
const PORT: u16 = 4318;
/// Where OTLP over HTTP takes traces, unless the endpoint says otherwise.
const PATH: &str = "/v1/traces";
/// The most of a million.
const RATE_MAX: u32 = 1_000_000;
/// 1 KiB: a longer URL is a mistake.
const URL_MAX: usize = 1 << 10;

/// Where traces go, and how many. The keys are the kubelet's; it speaks gRPC there, and here it is HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// The URL of a collector that takes OTLP over HTTP; empty: nothing is traced.
    pub endpoint: String,
    /// Of a million things that begin here so many are traced, 1,000,000 at the most; what the other side traces is in any case.
    pub sampling_rate_per_million: u32,
}

/// A collector that takes OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Whether it is HTTPS.
    pub is_tls: bool,
    /// Its name or address; one of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where traces are posted, with a slash in front.
    pub path: String,
}

impl Collector {
    /// As it stands in a `Host` header.
    pub fn authority(&self) -> String {
        let Collector { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// From a URL.
    fn parse(url: &str) -> Result<Collector, String> {
        let wrong = |why: &str| format!("{why}; write it as http://collector.example:{PORT}");
        if url.len() > URL_MAX || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("is longer than 1 KiB or has blanks in it"));
        }
        let (is_tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            // The kubelet's own form, for gRPC.
            (None, None) => {
                return Err(wrong("is no http or https URL: traces leave by OTLP over HTTP, not by gRPC"));
            }
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains(['@', '?', '#']) || path.contains(['?', '#']) || !path.is_ascii() {
            return Err(wrong("has a login or a query in it"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:{PORT}") };
        let (host, port) =
            parse_host_port(&with_port).map_err(|why| wrong(&format!("names no host: {why}")))?;
        let path = if path.trim_matches('/').is_empty() { PATH } else { path };
        Ok(Collector { is_tls, host, port, path: path.to_owned() })
    }
}

impl Tracing {
    /// Where traces go; `None`: nothing is traced.
    pub fn collector(&self) -> Option<Collector> {
        Collector::parse(&self.endpoint).ok()
    }

    /// `at` is the section, dotted.
    pub(crate) fn check(&self, at: &str, defects: &mut Vec<Defect>) {
        if !self.endpoint.is_empty()
            && let Err(why) = Collector::parse(&self.endpoint)
        {
            defects.push(Defect::new(&format!("{at}.endpoint"), why));
        }
        let rate = self.sampling_rate_per_million;
        if rate > RATE_MAX {
            let what = format!("is {rate}; of a million there are {RATE_MAX} at the most");
            defects.push(Defect::new(&format!("{at}.samplingRatePerMillion"), what));
        }
        if self.endpoint.is_empty() && rate > 0 {
            let what = "is given, and `endpoint` is not: say where the traces go, or remove it".to_owned();
            defects.push(Defect::new(&format!("{at}.samplingRatePerMillion"), what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_url_and_off_is_none() {
        let read = |url: &str| {
            let tracing = Tracing { endpoint: url.to_owned(), ..Tracing::default() };
            let mut defects = Vec::new();
            tracing.check("tracing", &mut defects);
            assert_eq!(defects.is_empty(), url.is_empty() || tracing.collector().is_some(), "{url}");
            tracing.collector().map(|at| (at.is_tls, at.authority(), at.path))
        };
        let found = |is_tls, at: &str, path: &str| Some((is_tls, at.to_owned(), path.to_owned()));
        assert_eq!(read(""), None);
        assert_eq!(read("http://collector"), found(false, "collector:4318", "/v1/traces"));
        assert_eq!(
            read("https://10.0.0.7:443/otlp/v1/traces"),
            found(true, "10.0.0.7:443", "/otlp/v1/traces")
        );
        assert_eq!(read("http://[2001:db8::7]/"), found(false, "[2001:db8::7]:4318", "/v1/traces"));
        for wrong in [
            "localhost:4317",
            "grpc://h",
            "http://",
            "http://:4318",
            "http://h:0",
            "http://h:99999",
            "http://u:p@h",
            "http://h/a?b",
            "http://h\r\nX: y",
            "http://h/ü",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_of_a_million_and_goes_somewhere() {
        let told = |endpoint: &str, rate| {
            let tracing = Tracing { endpoint: endpoint.to_owned(), sampling_rate_per_million: rate };
            let mut defects = Vec::new();
            tracing.check("commonConfig.tracing", &mut defects);
            defects.into_iter().map(|defect| defect.key).collect::<Vec<_>>()
        };
        assert_eq!(told("http://h", 1_000_000), [] as [&str; 0]);
        assert_eq!(told("", 0), [] as [&str; 0]);
        assert_eq!(told("http://h", 1_000_001), ["commonConfig.tracing.samplingRatePerMillion"]);
        assert_eq!(told("", 1), ["commonConfig.tracing.samplingRatePerMillion"]);
    }
}
