//! Whose process listens at a port of this machine's loopback, out of `/proc/net/tcp` and `/proc/net/tcp6`. Pure but for [`owners`].
//!
//! A mapper is known by its Unix socket, whose other end the kernel names. Its REST interface is a port, which any user of the
//! machine may take while the mapper does not have it: what is to be written to a device is told to the mapper's user alone.

use std::collections::BTreeSet;
use std::io;

use crate::peer::read_capped;

/// 4 MiB of each: some 25,000 sockets.
const TABLE_MAX: u64 = 4 << 20;
/// `TCP_LISTEN`.
const LISTEN: &str = "0A";

/// The users of the sockets that take a connection to 127.0.0.1 at this port.
///
/// # Errors
/// When the kernel's tables cannot be read.
pub(crate) fn owners(port: u16) -> io::Result<BTreeSet<u32>> {
    let mut found = owners_in(&read_capped("/proc/net/tcp", TABLE_MAX)?, port);
    match read_capped("/proc/net/tcp6", TABLE_MAX) {
        Ok(table) => found.extend(owners_in(&table, port)),
        // A machine without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn owners_in(table: &str, port: u16) -> BTreeSet<u32> {
    table.lines().skip(1).filter_map(|line| owner_in(line, port)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid …`
fn owner_in(line: &str, port: u16) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace();
    let (address, at) = fields.nth(1)?.split_once(':')?;
    let is_it = takes_loopback(address) && u16::from_str_radix(at, 16) == Ok(port);
    let state = fields.nth(1)?;
    let uid = fields.nth(3)?.parse().ok()?;
    (is_it && state == LISTEN).then_some(uid)
}

/// 127.0.0.1 and every address, of both families, as the kernel writes them: words of the machine's byte order.
fn takes_loopback(address: &str) -> bool {
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let mapped = format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 0xff, 0xff]));
    address.bytes().all(|byte| byte == b'0') || address == loopback || address == mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn only_who_listens_at_the_port_counts() {
        let table = |rows: &[(&str, &str, u32)]| {
            let rows = rows.iter().map(|(at, state, uid)| {
                format!("   0: {at} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 1 1 0\n")
            });
            format!("{HEAD}{}", rows.collect::<String>())
        };
        let loopback = format!("{:08X}:1E61", u32::from_ne_bytes([127, 0, 0, 1]));
        let other = format!("{:08X}:1E61", u32::from_ne_bytes([192, 0, 2, 7]));
        let text = table(&[
            (&loopback, "0A", 7),
            ("00000000:1E61", "0A", 8),
            ("00000000000000000000000000000000:1E61", "0A", 9),
            (&loopback, "01", 1),
            (&other, "0A", 2),
            ("00000000:1E62", "0A", 3),
        ]);
        assert_eq!(owners_in(&text, 7777), BTreeSet::from([7, 8, 9]));
        for damaged in ["", HEAD, "x\ny", "x\n 0: a:b c 0A", "x\n0: 00000000:1E61 x 0A x x x nobody"] {
            assert_eq!(owners_in(damaged, 7777), BTreeSet::new(), "{damaged}");
        }
    }

    #[test]
    fn this_process_is_found_at_its_port() {
        let me = rustix::process::geteuid().as_raw();
        for at in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = std::net::TcpListener::bind(at).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert_eq!(owners(port).unwrap(), BTreeSet::from([me]), "{at}");
            drop(listener);
            assert_eq!(owners(port).unwrap(), BTreeSet::new(), "{at}");
        }
    }
}
