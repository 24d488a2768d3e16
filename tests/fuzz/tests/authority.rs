//! The front of our gRPC sockets: what clients send, damaged, in pieces of any size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use fuzz::{SplitMix64, endure};
use tokio::io::AsyncReadExt as _;
use unixgrpc::AnyAuthority;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn whatever_a_client_sends_keeps_its_length_but_for_empty_authorities_and_leaves_nothing() {
    let recorded = [
        bytes(include_str!("../../../modules/unixgrpc/tests/recorded/python.hex")),
        bytes(include_str!("../../../modules/unixgrpc/tests/recorded/go.hex")),
    ];
    let valid: Vec<&[u8]> = recorded.iter().map(Vec::as_slice).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let left = endure(41, |random: &mut SplitMix64| {
        let mut input = random.damaged(&valid);
        if random.below(4) == 0 {
            input = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), random.bytes(400)].concat();
        }
        let size = 1 + random.below(64);
        let out = runtime.block_on(async {
            let mut front = AnyAuthority::new(input.as_slice());
            let (mut out, mut piece) = (Vec::new(), vec![0; size]);
            loop {
                match front.read(&mut piece).await.unwrap() {
                    0 => return out,
                    read => out.extend_from_slice(&piece[..read]),
                }
            }
        });
        // An empty authority goes, a byte of a frame, which has nine before it.
        let gone = input.len().checked_sub(out.len());
        assert!(gone.is_some_and(|gone| gone <= input.len() / 10), "{gone:?} of {}", input.len());
        // What comes before the first call is nobody's authority.
        assert_eq!(out.get(..24), input.get(..24));
    });
    println!("{} KiB are left", left.unwrap());
}
