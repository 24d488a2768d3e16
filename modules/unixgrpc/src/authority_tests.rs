//! The client's bytes, piece by piece.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    bytes.extend(payload);
    bytes
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(0x4, 0, &[]));
    bytes.extend(frames.concat());
    bytes
}

/// `bytes` after the front, which gets them in pieces of `size`.
fn through(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut rewriter, mut bytes) = (Rewriter::default(), bytes.to_vec());
    let pieces =
        bytes.chunks_mut(size).map(|piece| rewriter.rewrite(piece).unwrap_or_else(|| piece.to_vec()));
    pieces.collect::<Vec<_>>().concat()
}

fn literal(first: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, u8::try_from(value.len()).unwrap()];
    bytes.extend(value);
    bytes
}

/// The name and the value spelled plainly, as gRPC's C core does it.
fn spelled(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = literal(first, name);
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend(value);
    bytes
}

const SOCKET: &[u8] = b"/var/lib/kubelet/device-plugins/kubelet.sock";

fn letters(like: &[u8]) -> Vec<u8> {
    vec![b'X'; like.len()]
}

/// Blocks, and what has to become of each.
fn blocks() -> Vec<(Vec<u8>, Vec<u8>)> {
    let method_and_path = [vec![0x83, 0x86], literal(0x44, b"/v1beta1.Registration/Register")].concat();
    let of = |authority: Vec<u8>| [method_and_path.clone(), authority, vec![0x90]].concat();
    let huffman =
        |value: &[u8]| [vec![0x41, 0x80 | u8::try_from(value.len()).unwrap()], value.to_vec()].concat();
    let name = [vec![0x40, 0x88], b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f".to_vec()].concat();
    // 300 = 127 + 173, and 173 = 45 + 1 * 128.
    let long = |value: &[u8]| [vec![0x41, 0x7f, 0xad, 0x01], value.to_vec()].concat();
    let long_value = vec![b'a'; 300];
    vec![
        (of(literal(0x41, SOCKET)), of(literal(0x41, &letters(SOCKET)))),
        (of(literal(0x01, SOCKET)), of(literal(0x01, &letters(SOCKET)))),
        (of(literal(0x11, SOCKET)), of(literal(0x11, &letters(SOCKET)))),
        (of(spelled(0x40, b":authority", SOCKET)), of(spelled(0x40, b":authority", &letters(SOCKET)))),
        (of(spelled(0x00, b":authority", SOCKET)), of(spelled(0x00, b":authority", &letters(SOCKET)))),
        (of(huffman(b"\x60\x75\x99\x89")), of(huffman(&[0xfc; 4]))),
        (of([name.clone(), vec![2], b"/x".to_vec()].concat()), of([name, vec![2], b"XX".to_vec()].concat())),
        (of(long(&long_value)), of(long(&letters(&long_value)))),
        // Others keep their value.
        (of(spelled(0x40, b":authoritx", SOCKET)), of(spelled(0x40, b":authoritx", SOCKET))),
        (of(spelled(0x40, b":authorit", SOCKET)), of(spelled(0x40, b":authorit", SOCKET))),
        (of(spelled(0x40, b":authorityy", SOCKET)), of(spelled(0x40, b":authorityy", SOCKET))),
        (of(literal(0x42, SOCKET)), of(literal(0x42, SOCKET))),
        // The size of the table comes first, in a number of more than one byte.
        (
            [vec![0x3f, 0xe1, 0x1f], literal(0x41, b"/x")].concat(),
            [vec![0x3f, 0xe1, 0x1f], literal(0x41, b"XX")].concat(),
        ),
    ]
}

#[test]
fn the_authority_is_overwritten_and_nothing_else_however_the_bytes_arrive() {
    for (block, wanted) in blocks() {
        let whole = |block: &[u8]| connection(&[frame(0x1, 0x4, block), frame(0x0, 0x1, SOCKET)]);
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(through(&whole(&block), size), whole(&wanted), "{block:x?} in pieces of {size}");
        }
    }
}

#[test]
fn an_authority_without_a_sign_gives_way_to_a_header_without_a_value_at_the_end() {
    let whole = |frames: &[Vec<u8>]| connection(&[frames.concat(), frame(0x0, 0x1, SOCKET)]);
    let path = literal(0x44, b"/a/B");
    let rest = [path.clone(), spelled(0x40, b"te", b"trailers")].concat();
    for (block, wanted) in [
        (
            [vec![0x83, 0x81, 0x86], rest.clone()].concat(),
            [vec![0x83, 0x86], rest.clone(), vec![0x8f]].concat(),
        ),
        ([vec![0x81], rest.clone()].concat(), [rest.clone(), vec![0x8f]].concat()),
        ([path.clone(), vec![0x81]].concat(), [path, vec![0x8f]].concat()),
        (vec![0x81], vec![0x8f]),
        // No call names two.
        (vec![0x81, 0x83, 0x81], vec![0x83, 0x81, 0x8f]),
    ] {
        let padded = |block: &[u8]| frame(0x1, 0x4 | 0x8, &[vec![2], block.to_vec(), vec![0; 2]].concat());
        let twice = |block: &[u8]| whole(&[frame(0x1, 0x4, block), padded(block)]);
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(through(&twice(&block), size), twice(&wanted), "{block:x?} in pieces of {size}");
        }
        // What goes on in another frame stays, and so does what the other frame has.
        let spread = whole(&[frame(0x1, 0, &block), frame(0x9, 0x4, &block)]);
        assert_eq!(through(&spread, 3), spread);
    }
}

#[test]
fn a_block_may_be_spread_over_frames_with_padding_and_priority() {
    for (block, wanted) in blocks() {
        for cut in 0..block.len() {
            let spread = |block: &[u8]| {
                let padded = [vec![3], vec![0; 5], block[..cut].to_vec(), vec![0; 3]].concat();
                connection(&[
                    frame(0x1, 0x8 | 0x20, &padded),
                    frame(0x9, 0, &[]),
                    frame(0x9, 0x4, &block[cut..]),
                    frame(0x6, 0, &[0x41; 8]),
                ])
            };
            assert_eq!(through(&spread(&block), 5), spread(&wanted), "cut at {cut}");
        }
    }
}

#[test]
fn a_name_that_stands_in_the_table_is_known() {
    // The first call spells the name; the second names the entry, which another has pushed back by one.
    let first = |value: &[u8]| spelled(0x40, b":authority", value);
    let second = |value: &[u8]| [spelled(0x40, b"x", b"y"), literal(0x7f, value)].concat();
    // 63 as a number of six bits: 0x7f 0x00.
    let second = |value: &[u8]| {
        let mut bytes = second(value);
        let at = bytes.len() - value.len() - 1;
        bytes.insert(at, 0x00);
        bytes
    };
    let calls = |value: &[u8]| connection(&[frame(0x1, 0x4, &first(value)), frame(0x1, 0x4, &second(value))]);
    assert_eq!(through(&calls(SOCKET), 4), calls(&letters(SOCKET)));
    // Index 62 is the other one's name then, and stays what it is.
    let third = connection(&[
        frame(0x1, 0x4, &first(b"/x")),
        frame(0x1, 0x4, &[spelled(0x40, b"x", b"y"), literal(0x7e, SOCKET)].concat()),
    ]);
    assert!(through(&third, 4).ends_with(SOCKET));
}

proptest! {
    /// Whatever comes: the same length but for a byte that is to come at a frame's end, and no panic.
    #[test]
    fn noise_passes(bytes in proptest::collection::vec(any::<u8>(), 0..2000), size in 1usize..50) {
        let noise = connection(&[bytes]);
        let out = through(&noise, size).len();
        prop_assert!(out == noise.len() || out + 1 == noise.len());
        let block = noise.get(33..).unwrap_or_default();
        let framed = connection(&[frame(0x1, 0x4, block), frame(0x1, 0x28, block)]);
        let out = through(&framed, size);
        prop_assert!(out.len() == framed.len() || out.len() + 1 == framed.len());
        prop_assert_eq!(&out, &through(&framed, 1));
    }
}
