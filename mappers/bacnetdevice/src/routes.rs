//! Where broadcasts go: the networks that this machine is in, by the kernel's table (proc(5): `/proc/net/route`). A device may hear those to its
//! own network's address alone, and 255.255.255.255 goes to one network of several.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;

/// 64 KiB of the table are looked at: more than 400 routes.
const TABLE_MAX: u64 = 64 << 10;
/// 16 networks are asked.
const NETWORKS_MAX: usize = 16;
/// The route is up, and leads by way of a gateway (`RTF_UP`, `RTF_GATEWAY`).
const IS_UP: u32 = 1;
const HAS_GATEWAY: u32 = 2;
/// A network with room for two addresses, and for one, has no broadcasts (RFC 3021).
const WITHOUT_BROADCAST: u32 = 31;

/// The broadcast addresses of this machine's networks, and of any.
pub(crate) fn broadcasts() -> Vec<Ipv4Addr> {
    let table = read().unwrap_or_default();
    let mut found = networks(&table);
    found.push(Ipv4Addr::BROADCAST);
    found
}

fn read() -> io::Result<String> {
    let mut table = String::new();
    File::open("/proc/net/route")?.take(TABLE_MAX).read_to_string(&mut table)?;
    Ok(table)
}

fn networks(table: &str) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = table.lines().skip(1).filter_map(broadcast).collect();
    found.sort();
    found.dedup();
    found.truncate(NETWORKS_MAX);
    found
}

fn broadcast(line: &str) -> Option<Ipv4Addr> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, destination, _, flags, _, _, _, mask, ..] = columns.as_slice() else { return None };
    // The kernel writes the four bytes as a number of this machine's.
    let address = |text: &str| {
        let number = u32::from_str_radix(text, 16).ok()?;
        Some(u32::from_be_bytes(number.to_ne_bytes()))
    };
    let (destination, mask) = (address(destination)?, address(mask)?);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let is_own =
        flags & (IS_UP | HAS_GATEWAY) == IS_UP && mask != 0 && mask.leading_ones() < WITHOUT_BROADCAST;
    let broadcast = Ipv4Addr::from(destination | !mask);
    (is_own && !broadcast.is_loopback() && !broadcast.is_link_local()).then_some(broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_of_this_machine_is_asked_once() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |to: [u8; 4], gateway: [u8; 4], flags: u32, mask: [u8; 4]| {
            format!("eth0\t{}\t{}\t{flags:04X}\t0\t0\t0\t{}\t0\t0\t0\n", hex(to), hex(gateway), hex(mask))
        };
        let none = [0; 4];
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
            .to_owned()
            + &line(none, [192, 0, 2, 1], 3, none)
            + &line([192, 0, 2, 0], none, 1, [255, 255, 255, 0])
            + &line([192, 0, 2, 0], none, 1, [255, 255, 255, 0])
            + &line([10, 8, 0, 0], none, 1, [255, 252, 0, 0])
            + &line([198, 51, 100, 0], [192, 0, 2, 1], 3, [255, 255, 255, 0])
            + &line([203, 0, 113, 0], none, 0, [255, 255, 255, 0])
            + &line([203, 0, 113, 4], none, 1, [255, 255, 255, 254])
            + &line([169, 254, 0, 0], none, 1, [255, 255, 0, 0])
            + "eth0\tno number\n";
        let wanted = [Ipv4Addr::new(10, 11, 255, 255), Ipv4Addr::new(192, 0, 2, 255)];
        assert_eq!(networks(&table), wanted);
        assert!(networks("").is_empty());
    }
}
