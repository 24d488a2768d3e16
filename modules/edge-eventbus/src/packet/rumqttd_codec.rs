//! Why rumqttd's codec of MQTT 5 does not read what clients send: what it does with a few bytes that any of them could.
//! Each of these fails once the crate has been mended.

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Error, Packet, Protocol};

fn read(bytes: &[u8]) -> (Result<Packet, Error>, usize) {
    let mut buffer = BytesMut::from(bytes);
    let read = V5.read_mut(&mut buffer, 1024);
    (read, buffer.len())
}

#[test]
#[should_panic]
fn it_panics_at_a_packet_of_a_server() {
    drop(read(b"\x20\x03\x00\x00\x00"));
}

#[test]
fn it_waits_for_more_of_a_packet_that_it_has_taken() {
    // SUBSCRIBE that ends where its properties are due: the packet is malformed, and nothing more will come of it.
    let (read, left) = read(b"\x82\x02\x00\x01");
    assert!(matches!(read, Err(Error::InsufficientBytes(_))) && left == 0, "{read:?}, {left} left");
}

#[test]
fn it_hands_two_subscription_identifiers_of_a_client_on_and_takes_properties_for_payload() {
    // Forbidden to a client, and with two of them the payload format that follows is read as if it were payload.
    let bytes = b"\x30\x0c\x00\x01t\x06\x0b\x01\x0b\x02\x01\x01xy";
    let (read, _) = read(bytes);
    let Ok(Packet::Publish(publish, _)) = read else { panic!("{read:?}") };
    assert_ne!(publish.payload, Bytes::from_static(b"xy"));
}

#[test]
fn it_passes_a_topic_with_a_wildcard_and_an_alias_of_0() {
    let (wildcard, _) = read(b"\x30\x05\x00\x01#\x00x");
    assert!(matches!(wildcard, Ok(Packet::Publish(..))), "{wildcard:?}");
    let (alias, _) = read(b"\x30\x08\x00\x01t\x03\x23\x00\x00x");
    assert!(matches!(alias, Ok(Packet::Publish(..))), "{alias:?}");
}

#[test]
fn it_writes_a_byte_too_many_behind_a_disconnect() {
    let mut out = BytesMut::new();
    let disconnect = Disconnect { reason_code: DisconnectReasonCode::SessionTakenOver };
    V5.write(Packet::Disconnect(disconnect, None), &mut out).unwrap();
    let (length, body) = (usize::from(out[1]), out.len() - 2);
    assert_ne!(length, body, "{out:x?}");
}
