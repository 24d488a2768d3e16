//! One echo request (ICMP, RFC 792 and 4443), as `ping` sends it: whether an address answers at all.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use beehive::Env;
use nodechecks::Finding;
use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};
use tokio::net::UdpSocket;

const CHECK: &str = "Ping";
/// 1 s, and twice more.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
/// Types of messages: request and reply of either version.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// A request with these 16 bytes in it.
fn request(is_v4: bool, content: [u8; 16]) -> Vec<u8> {
    let kind = if is_v4 { V4.0 } else { V6.0 };
    let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    message.extend(content);
    // That of version 6 is the kernel's to write.
    if is_v4 {
        let [high, low] = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&[high, low]);
    }
    message
}

fn checksum(message: &[u8]) -> u16 {
    let words =
        message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Whether a datagram is the reply to it. One of a raw socket of version 4 has the IP header before it.
fn is_reply(datagram: &[u8], is_v4: bool, content: [u8; 16]) -> bool {
    let header = match datagram.first() {
        Some(first) if is_v4 && first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let message = datagram.get(header..).unwrap_or_default();
    message.first().copied() == Some(if is_v4 { V4.1 } else { V6.1 })
        && message.get(8..24) == Some(content.as_slice())
}

/// For everybody where the kernel lets them (`net.ipv4.ping_group_range`), else for root.
fn open(to: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let opened = socket(family, SocketType::DGRAM, Some(protocol));
    let opened = opened.or_else(|_| socket(family, SocketType::RAW, Some(protocol)))?;
    rustix::io::ioctl_fionbio(&opened, true)?;
    connect(&opened, &SocketAddr::new(to, 0))?;
    Ok(opened)
}

async fn echo(to: IpAddr, env: &Env) -> io::Result<bool> {
    let content = env.random_id();
    // Datagrams of whichever protocol the socket has.
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(open(to)?))?;
    let mut buffer = [0; 512];
    for _ in 0..TRIES {
        socket.send(&request(to.is_ipv4(), content)).await?;
        let heard = env.timeout(ANSWERS_WITHIN, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if is_reply(&buffer[..length], to.is_ipv4(), content) {
                    return Ok::<_, io::Error>(());
                }
            }
        });
        match heard.await {
            Some(Ok(())) => return Ok(true),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(false)
}

/// Whether it answers.
pub(super) async fn ping(to: IpAddr, env: &Env) -> Finding {
    match echo(to, env).await {
        Ok(true) => Finding::passed(CHECK, format!("{to} answers")),
        Ok(false) => Finding::failed(
            CHECK,
            format!(
                "{to} does not answer {TRIES} pings: is it on, and does a firewall let ICMP pass? Where none does, the check CloudCore tells more"
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::warned(CHECK, format!("{to} was not asked: pings need root ({error})"))
        }
        Err(error) => Finding::failed(
            CHECK,
            format!(
                "{to} cannot be reached ({error}): look at this machine's routes (`ip route`) and cable (`ip link`)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade::Passed;

    use super::*;
    use crate::debug::testing::grade;

    #[test]
    fn a_request_is_summed_and_no_reply_itself() {
        let content = [7; 16];
        let message = request(true, content);
        assert_eq!(checksum(&message), 0, "a message with its own sum comes to nothing");
        assert!(!is_reply(&message, true, content), "loopback shows it to who sent it");
        let mut reply = message.clone();
        reply[0] = 0;
        assert!(is_reply(&reply, true, content) && !is_reply(&reply, true, [8; 16]));
        let mut raw = vec![0x45; 20];
        raw.extend(&reply);
        assert!(is_reply(&raw, true, content));
        assert!(!is_reply(&raw[..30], true, content) && !is_reply(&[], true, content));
        let mut reply = request(false, content);
        reply[0] = 129;
        assert!(is_reply(&reply, false, content));
    }

    #[actix_rt::test]
    async fn this_machine_answers_itself() {
        let found = ping(IpAddr::from([127, 0, 0, 1]), &Env::real()).await;
        // Whoever is not root may not ask everywhere.
        if rustix::process::geteuid().is_root() {
            grade(&found, Passed, "127.0.0.1 answers");
        }
    }
}
