//! Join tokens, requests for certificates, and names: what a stranger shows at enrolment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, SystemTime};

use contract::NodeName;
use fuzz::endure;
use pki::{Authority, JoinToken, NodeRequest, TokenKey};

const NOW: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_token_is_good_or_refused_and_leaves_nothing() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let authority = Authority::create(wall, [7; 16]).unwrap();
    let key = TokenKey::new(&[9; 32]).unwrap();
    let open = key.mint(authority.cert_der(), NOW + 100, "t1", None).unwrap();
    let bound = key.mint(authority.cert_der(), NOW + 100, "t2", Some("edge-1")).unwrap();
    let foreign = TokenKey::new(&[8; 32]).unwrap().mint(authority.cert_der(), NOW + 100, "t3", None).unwrap();
    let none = format!(
        "{}.eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksImF1ZCI6Imt1YmVoaXZlLWpvaW4iLCJqdGkiOiJ4In0.x",
        pki::pin_of(authority.cert_der())
    );
    let valid = [open.as_str(), &bound, &foreign, &none];
    let mut taken = 0_u32;
    let left = endure(1, |random| {
        let text = if random.below(8) == 0 { random.text(6000) } else { random.damaged_text(&valid) };
        let parsed = JoinToken::parse(&text);
        // The server gets the second part only, and gets it whatever the first is.
        let jwt = text.split_once('.').map_or(text.as_str(), |(_, jwt)| jwt);
        if key.verify(jwt, NOW, "edge-1").is_ok() {
            taken += 1;
            let good = [&open, &bound].map(|token| token.split_once('.').unwrap().1);
            assert!(good.contains(&jwt), "taken: {jwt}");
        }
        if let Ok(token) = parsed {
            let _ = token.check_authority(authority.cert_der());
        }
    });
    println!("{} KiB are left; {taken} were good", left.unwrap());
}

#[test]
fn a_request_is_signed_for_the_name_that_was_asked_or_refused() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let authority = Authority::create(wall, [7; 16]).unwrap();
    let requests = ["edge-1", "edge-2"].map(|name| NodeRequest::new(name).unwrap().csr_der);
    let certificate = authority.cert_der().to_vec();
    let valid: Vec<&[u8]> = requests.iter().map(Vec::as_slice).chain([certificate.as_slice()]).collect();
    let mut signed = 0_u32;
    let left = endure(2, |random| {
        let bytes = if random.below(8) == 0 { random.bytes(20_000) } else { random.damaged(&valid) };
        if let Ok(issued) = authority.sign_node(&bytes, "edge-1", wall, DAY, [3; 16]) {
            signed += 1;
            assert_eq!(pki::node_of_certificate(&issued.der).unwrap(), "edge-1");
        }
        let _ = pki::node_of_certificate(&bytes);
        let _ = pki::serial_of(&bytes);
        let _ = NodeName::parse(&String::from_utf8_lossy(&bytes));
    });
    println!("{} KiB are left; {signed} were signed", left.unwrap());
}
