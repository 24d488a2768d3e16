//! `modules.edgePage` of `edgecore.yaml`: a page for people on the node, also while it is cut off.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::error::Defect;

/// The node's page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgePage {
    /// Whether there is one.
    pub enable: bool,
    /// Where it is: an IP address of loopback.
    pub server: String,
    /// The port there.
    pub port: u16,
}

impl Default for EdgePage {
    fn default() -> Self {
        EdgePage { enable: false, server: "127.0.0.1".to_owned(), port: 10360 }
    }
}

impl EdgePage {
    /// Where it is; `None` where that is no address of loopback.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip = self.server.parse::<IpAddr>().ok().filter(IpAddr::is_loopback)?;
        Some((ip, self.port).into())
    }

    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        let mut told = |name: &str, what: String| {
            defects.push(Defect::new(&format!("modules.edgePage.{name}"), what));
        };
        if self.address().is_none() {
            let what = format!(
                "is `{}`, not an IP address of loopback: the page has no TLS; from another machine reach it by `ssh -L {port}:127.0.0.1:{port}`",
                self.server,
                port = self.port,
            );
            told("server", what);
        }
        if self.port == 0 {
            told("port", "is 0; `keadm ctl page` has to name it: 1 to 65535".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_and_on_loopback_alone() {
        assert!(!EdgePage::default().enable);
        let told = |change: fn(&mut EdgePage)| {
            let (mut page, mut defects) = (EdgePage::default(), Vec::new());
            change(&mut page);
            page.check(&mut defects);
            defects.into_iter().map(|defect| defect.key).collect::<Vec<_>>()
        };
        assert_eq!(told(|_| ()), [] as [&str; 0]);
        assert_eq!(told(|page| page.server = "::1".into()), [] as [&str; 0]);
        for server in ["0.0.0.0", "::", "192.0.2.1", "localhost", ""] {
            let mut page = EdgePage { server: server.to_owned(), ..EdgePage::default() };
            let mut defects = Vec::new();
            page.check(&mut defects);
            assert_eq!(defects.len(), 1, "{server}");
            page.enable = true;
            assert_eq!(page.address(), None, "{server}");
        }
        assert_eq!(told(|page| page.port = 0), ["modules.edgePage.port"]);
    }
}
