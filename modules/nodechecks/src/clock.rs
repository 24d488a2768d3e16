//! The clock of this machine. The verdicts are pure.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::finding::Finding;
use crate::host::Host;

/// The name of the check.
pub const CLOCK: &str = "Clock";

/// A time for people.
pub fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "a time beyond all calendars".to_owned(), |time| time.to_string())
}

/// The clock by itself: no machine runs a program before it was made.
pub fn before_program(now: SystemTime) -> Option<Finding> {
    let made = UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX);
    (now < made).then(|| {
        Finding::failed(
            CLOCK,
            format!(
                "it says {}, before this program was made: set it (`timedatectl set-ntp true`, or `date -s`), and let something keep it; a board without a \
                 battery begins there with each boot",
                time(now)
            ),
        )
    })
}

/// The clock beside the node's own certificate: none begins in the future.
pub fn behind(now: SystemTime, began: SystemTime) -> Option<Finding> {
    (now < began).then(|| {
        Finding::failed(
            CLOCK,
            format!(
                "it says {}, and this node's certificate began at {}: the clock is behind; set it (`timedatectl set-ntp true`, or `date -s`). The link is \
                 made all the same, and logs and pods have wrong times",
                time(now),
                time(began)
            ),
        )
    })
}

/// Both, of a node whose certificate lies there. `now`: what the machine's clock says.
pub fn of_node(now: SystemTime, host: &Host, certificate: &Path) -> Finding {
    let began = || {
        let der = CertificateDer::from_pem_slice(host.read(certificate)?.as_bytes()).ok()?;
        Some(pki::validity_of(&der).ok()?.not_before)
    };
    let found = before_program(now).or_else(|| behind(now, began()?));
    found.unwrap_or_else(|| Finding::passed(CLOCK, time(now)))
}

#[cfg(test)]
mod tests {
    use pki::{Authority, NodeRequest};

    use super::*;
    use crate::finding::Grade::{Failed, Passed};
    use crate::finding::tests::grade;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    #[test]
    fn a_clock_before_the_program_is_behind() {
        grade(&before_program(UNIX_EPOCH).unwrap(), Failed, "1970-01-01");
        assert_eq!(before_program(now()), None);
    }

    /// The certificate is a real one, in its file.
    #[test]
    fn a_clock_before_the_nodes_certificate_is_behind() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let look = |at| of_node(at, &host, Path::new("/server.crt"));
        grade(&look(now()), Passed, "2033-05-18");
        grade(&look(UNIX_EPOCH), Failed, "before this program was made");
        let authority = Authority::create(now(), [2; 16]).unwrap();
        let request = NodeRequest::new("edge-1").unwrap();
        let life = Duration::from_secs(30 * 24 * 3600);
        let issued = authority.sign_node(&request.csr_der, "edge-1", now(), life, [1; 16]).unwrap();
        let certificate = pki::pem_of("CERTIFICATE", &issued.der);
        std::fs::write(folder.path().join("server.crt"), certificate).unwrap();
        grade(&look(now()), Passed, "2033-05-18");
        grade(&look(now() - life), Failed, "this node's certificate began at");
    }
}
