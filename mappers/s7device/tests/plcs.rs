//! What PLCs do, and what is no PLC: against one that answers as it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod plc;

use std::time::{Duration, Instant};

use dmi::Scalar;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use plc::{Plc, Quirks};
use s7device::{Address, S7, S7Session, Visitor};

fn address(plc: &Plc, more: &[(&'static str, Scalar)]) -> Address {
    let pairs = [
        ("ip", Scalar::Text("127.0.0.1".to_owned())),
        ("port", Scalar::Int(plc.address.port().into())),
        ("timeoutMs", Scalar::Int(300)),
    ];
    Address::read(&Settings::from_pairs(pairs.into_iter().chain(more.iter().cloned()))).unwrap()
}

async fn session(plc: &Plc) -> S7Session {
    S7::default().connect(&address(plc, &[])).await.unwrap()
}

fn visitor(kind: Kind, address: &str) -> Visitor {
    let pairs = [("address", Scalar::Text(address.to_owned()))];
    Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs)).unwrap()
}

fn word() -> Visitor {
    visitor(Kind::Int, "DB1.DBW0")
}

const SEVENS: Value = Value::Int(0x0707);

#[tokio::test]
async fn a_slot_that_is_not_given_is_found_and_one_that_is_wrong_is_said() {
    let plc = Plc::start(Quirks { tsap: Some(0x0102), ..Quirks::default() }).await;
    assert_eq!(session(&plc).await.read(&word()).await, Ok(SEVENS));
    assert_eq!(plc.inside.lock().unwrap().connections, 3);
    let wrong = S7::default().connect(&address(&plc, &[("slot", Scalar::Int(4))])).await.unwrap_err();
    let Fault::NotSent(reason) = wrong else { panic!("{wrong}") };
    assert!(reason.contains("at TSAP 0104 refused") && reason.contains("`slot`"), "{reason}");
}

#[tokio::test]
async fn devices_of_one_plc_share_one_connection() {
    let plc = Plc::start(Quirks::default()).await;
    let protocol = S7::default();
    let address = address(&plc, &[("slot", Scalar::Int(1))]);
    let (mut one, mut other) =
        (protocol.connect(&address).await.unwrap(), protocol.connect(&address).await.unwrap());
    let (word, byte) = (word(), visitor(Kind::Int, "MB0"));
    let (read, also_read) = tokio::join!(one.read(&word), other.read(&byte));
    assert_eq!((read, also_read), (Ok(SEVENS), Ok(Value::Int(7))));
    assert_eq!(plc.inside.lock().unwrap().connections, 1);
}

#[tokio::test]
async fn a_small_pdu_is_kept_to_and_a_long_text_comes_in_pieces() {
    let plc = Plc::start(Quirks { pdu: 240, ..Quirks::default() }).await;
    let mut session = session(&plc).await;
    let words = vec![word(); 30];
    let read = session.read_many(&words.iter().collect::<Vec<_>>()).await;
    assert_eq!(read.len(), 19);
    // 256 bytes of 7: a STRING of seven letters.
    let text = session.read(&visitor(Kind::Text, "DB1.DBB0")).await;
    assert_eq!(text, Ok(Value::Text("\u{7}".repeat(7))));
    for asked in &plc.inside.lock().unwrap().asked {
        assert!(asked.len() <= 240);
    }
    assert_eq!(plc.inside.lock().unwrap().asked.len(), 3);
}

#[tokio::test]
async fn refusals_say_what_to_tick() {
    let plc = Plc::start(Quirks { error: 0x8104, ..Quirks::default() }).await;
    let mut session = session(&plc).await;
    let refused = session.read(&word()).await.unwrap_err();
    assert!(matches!(&refused, Fault::Device(reason) if reason.contains("PUT/GET")), "{refused}");
    assert_eq!(plc.inside.lock().unwrap().connections, 1, "the connection is as good as before");
}

#[tokio::test]
async fn answers_in_pieces_are_put_together() {
    let plc = Plc::start(Quirks { pieces: Some(5), ..Quirks::default() }).await;
    assert_eq!(session(&plc).await.read(&word()).await, Ok(SEVENS));
}

#[tokio::test]
async fn what_is_no_answer_is_never_taken_for_one() {
    let plc = Plc::start(Quirks::default()).await;
    let mut session = session(&plc).await;
    let far_too_long = [3, 0, 0xFF, 0xFF, 2, 0xF0, 0x80];
    let another_ones =
        [3, 0, 0, 27, 2, 0xF0, 0x80, 0x32, 3, 0, 0, 0xEE, 0xEE, 0, 2, 0, 6, 0, 0, 4, 1, 0xFF, 4, 0, 16, 9, 9];
    let never_last = [&[3, 0, 1, 0, 2, 0xF0, 0][..], &[7; 249]].concat().repeat(40);
    for (instead, said) in [
        (far_too_long.to_vec(), "at most"),
        (never_last, "more than was agreed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "no ISO-on-TCP"),
        (vec![3, 0, 0, 9, 2, 0xF0, 0x80, 0x72, 1], "S7CommPlus"),
        (another_ones.to_vec(), "another request"),
        (vec![3, 0, 0, 11, 6, 0x80, 0, 1, 0, 1, 0x81], "congested"),
    ] {
        plc.inside.lock().unwrap().quirks.instead = Some(instead);
        let fault = session.read(&word()).await.unwrap_err();
        assert!(matches!(&fault, Fault::Silent(reason) if reason.contains(said)), "{said}: {fault}");
        assert_eq!(session.read(&word()).await, Ok(SEVENS), "on a new connection, after: {said}");
    }
}

#[tokio::test]
async fn a_plc_that_hangs_costs_its_time_out_and_a_close_while_idle_nothing() {
    let plc = Plc::start(Quirks { closes: true, ..Quirks::default() }).await;
    let mut session = session(&plc).await;
    for _ in 0..3 {
        assert_eq!(session.read(&word()).await, Ok(SEVENS));
    }
    plc.inside.lock().unwrap().quirks = Quirks { is_deaf: true, ..Quirks::default() };
    let began = Instant::now();
    let fault = session.read(&word()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Silent(reason) if reason.contains("300 ms")), "{fault}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let hung = Plc::start(Quirks { is_hung: true, ..Quirks::default() }).await;
    let fault = S7::default().connect(&address(&hung, &[])).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(reason) if reason.contains("does not answer")), "{fault}");
}

#[tokio::test]
async fn a_write_that_is_cut_is_not_sent_again() {
    let plc = Plc::start(Quirks { cuts_at_writes: true, ..Quirks::default() }).await;
    let mut session = session(&plc).await;
    assert_eq!(session.read(&word()).await, Ok(SEVENS));
    let fault = session.write(&word(), &Value::Int(1)).await.unwrap_err();
    assert!(matches!(fault, Fault::Silent(_)), "whether it was done is not known: {fault}");
    let writes = plc.inside.lock().unwrap().asked.iter().filter(|asked| asked[10] == 5).count();
    assert_eq!(writes, 1);
}

#[tokio::test]
async fn a_bit_is_written_as_a_bit() {
    let plc = Plc::start(Quirks::default()).await;
    let mut session = session(&plc).await;
    session.write(&visitor(Kind::Bool, "M10.3"), &Value::Bool(true)).await.unwrap();
    let asked = plc.inside.lock().unwrap().asked.last().unwrap().clone();
    assert_eq!(asked[15], 1, "a bit, and not the byte with its seven others");
    assert_eq!(asked[21..], [0, 0, 83, 0, 3, 0, 1, 1]);
}
