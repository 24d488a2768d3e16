//! Publishers that wait for subscribers, with a clock that runs as fast as it can, and without a router.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::access::Acl;
use crate::events;
use crate::message::Message;
use crate::packet::{self, FilterRequest};
use crate::retained::Retained;
use crate::rumqttd_router;
use crate::session::ConnectInfo;

type Client = (Rc<str>, Rc<ConnectionHandle>);

fn run(test: impl AsyncFnOnce(Env, Rc<RefCell<Broker>>)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let test = test(Env::seeded(1), Rc::new(RefCell::new(broker)));
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn client(broker: &RefCell<Broker>, name: &str, filters: &[&str]) -> Client {
    let id: Rc<str> = name.into();
    let (handle, _) = broker.borrow_mut().attach(&id, true, ConnectInfo::default());
    for filter in filters {
        let (no_local, retain_as_published, retain_handling) = (false, false, 0);
        let filter = (*filter).to_owned();
        let asked = FilterRequest { filter, qos: 1, no_local, retain_as_published, retain_handling };
        assert_eq!(broker.borrow_mut().subscribe(&id, &asked, None), 1);
    }
    (id, handle)
}

/// Publishes with QoS 1 as often as that, as fast as it may; answers how long it took.
async fn publish(env: &Env, broker: &RefCell<Broker>, (id, _): &Client, topic: &str, count: u32) -> Duration {
    let (began, router_form) = (env.now(), crate::topic::router_form(topic));
    for _ in 0..count {
        wait(env, |now| obstacle(&broker.borrow(), id, &router_form, 1, now)).await;
        let message = Message::of_node(topic.into(), Bytes::from_static(b"x"), 1, false);
        broker.borrow_mut().publish(message, false);
        tokio::task::yield_now().await;
    }
    env.now().since(began)
}

/// Reads all that comes. So once in `every` it says that it lives and acknowledges `acks` messages, and one that is none.
fn read(env: &Env, broker: &Rc<RefCell<Broker>>, (id, handle): &Client, acks: usize, every: Duration) {
    let open = Rc::new(RefCell::new(VecDeque::new()));
    let (for_writer, came) = (Rc::clone(broker), Rc::clone(&open));
    let (own_env, own_id, own_handle) = (env.clone(), Rc::clone(id), Rc::clone(handle));
    env.spawn(async move {
        let fill = |out: &mut Outbox, now| {
            let more = for_writer.borrow_mut().fill(&own_id, &own_handle, out, now);
            let mut all = out.head().clone();
            while let Some(packet) = next_identifier(&mut all) {
                came.borrow_mut().extend(packet);
            }
            more
        };
        write_all(&own_env, &own_handle, &mut tokio::io::sink(), fill).await;
    });
    let (env, broker, id, handle) = (env.clone(), Rc::clone(broker), Rc::clone(id), Rc::clone(handle));
    env.clone().spawn(async move {
        loop {
            env.sleep(every).await;
            handle.send(packet::pingresp());
            let mut broker = broker.borrow_mut();
            let Some(session) = broker.session_of(&id, &handle) else { return };
            session.acknowledged(60_000);
            let most = acks.min(open.borrow().len());
            open.borrow_mut().drain(..most).for_each(|pkid| session.acknowledged(pkid));
        }
    });
}

/// The identifier of the next packet if it is a publish; `None` if there is no packet.
fn next_identifier(out: &mut BytesMut) -> Option<Option<u16>> {
    let size = usize::from(*out.get(1)?) + 2;
    let packet = out.split_to(size);
    // Of topic `t`, behind whose length and letter it stands.
    (packet.first() == Some(&0x32)).then(|| Some(u16::from_be_bytes([packet[5], packet[6]]))).or(Some(None))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_client_that_lives_and_acknowledges_less_than_is_published_holds_nobody_up_for_more_than_ten_seconds() {
    for acks in [0, 1] {
        run(async |env, broker| {
            let slow = client(&broker, "slow", &["t"]);
            read(&env, &broker, &slow, acks, SECOND);
            let [one, other] = ["one", "other"].map(|name| client(&broker, name, &[]));
            let took = publish(&env, &broker, &one, "t", 3000).await;
            assert!((10 * SECOND..11 * SECOND).contains(&took), "{acks}: {took:?}");
            assert_eq!(publish(&env, &broker, &other, "t", 3000).await, Duration::ZERO, "{acks}");
            // Nor later: it has not kept up since.
            env.sleep(plan::PATIENCE_AGAIN).await;
            assert_eq!(publish(&env, &broker, &other, "t", 3000).await, Duration::ZERO, "{acks}");
            let counts = broker.borrow().counts.clone();
            assert_eq!(counts.of(events::CLIENT_CUT_OFF), 0);
            // 20 are on their way and 1,000 in its queue; that alone loses what is beyond.
            let lost = counts.of(events::QOS1_LOST);
            let wanted = if acks == 0 { 7980..=7980 } else { 7600..=7979 };
            assert!(wanted.contains(&lost) && !slow.1.is_closing(), "{acks}: {lost}");
        });
    }
}

#[test]
fn clients_that_go_and_come_again_hold_a_publisher_up_no_longer() {
    run(async |env, broker| {
        let publisher = client(&broker, "publisher", &[]);
        let mut took = Duration::ZERO;
        for n in 0..20 {
            let (id, handle) = client(&broker, &n.to_string(), &["t"]);
            took += publish(&env, &broker, &publisher, "t", 105).await;
            broker.borrow_mut().detach(&id, &handle, env.now());
        }
        assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
        env.sleep(plan::PATIENCE_AGAIN).await;
        let slow = client(&broker, "slow", &["t"]);
        assert!(publish(&env, &broker, &publisher, "t", 105).await >= 4 * SECOND);
        drop(slow);
    });
}

#[test]
fn a_client_that_keeps_up_gets_everything_and_is_waited_for_again_in_time() {
    run(async |env, broker| {
        let busy = client(&broker, "busy", &["t"]);
        read(&env, &broker, &busy, 20, Duration::from_millis(20));
        let publisher = client(&broker, "publisher", &[]);
        // It takes 1,000 a second.
        let took = publish(&env, &broker, &publisher, "t", 5_000).await;
        assert!((4 * SECOND..6 * SECOND).contains(&took), "{took:?}");
        assert!(busy.1.others_patience.left(env.now()) < 7 * SECOND);
        env.sleep(plan::PATIENCE_AGAIN).await;
        let took = publish(&env, &broker, &publisher, "t", 8_000).await;
        assert!((7 * SECOND..9 * SECOND).contains(&took), "{took:?}");
        let counts = broker.borrow().counts.clone();
        assert_eq!((counts.of(events::QOS1_LOST), counts.of(events::CLIENT_CUT_OFF)), (0, 0));
    });
}

/// A client whose socket holds little, and which reads `bytes` each second of what comes.
async fn write_to_a_slow_reader(env: &Env, bytes: usize, until: usize) -> Result<usize, ConnectionError> {
    use tokio::io::AsyncReadExt as _;
    let payload = Bytes::from(vec![7; 1 << 20]);
    let handle = ConnectionHandle::of(ConnectInfo::default());
    let (mut socket, mut other) = tokio::io::duplex(4096);
    let mut left = Some(payload);
    let fill = |out: &mut Outbox, _: Moment| {
        left.take().iter().for_each(|payload| out.put_payload(payload));
        false
    };
    let reading = async {
        let (mut read, mut some) = (0, vec![0; bytes]);
        while read < until {
            env.sleep(SECOND).await;
            read += other.read(&mut some).await.unwrap();
        }
        read
    };
    tokio::select! {
        end = write_all(env, &handle, &mut socket, fill) => Err(end),
        read = reading => Ok(read),
    }
}

/// mosquitto gives a slow client its large message, too. Cut off in the middle of it a client comes again and never gets it.
#[test]
fn a_client_that_takes_a_large_message_slowly_gets_all_of_it_and_one_that_takes_nothing_is_cut_off() {
    run(async |env, _| {
        let (whole, began) = (1 << 20, env.now());
        assert_eq!(write_to_a_slow_reader(&env, 4096, whole).await.unwrap(), whole);
        assert!(env.now().since(began) > 10 * plan::WRITE_DEADLINE);
        let stuck = write_to_a_slow_reader(&env, 100, whole).await;
        assert!(matches!(stuck, Err(ConnectionError::Stuck)), "100 bytes a second: {stuck:?}");
    });
}

/// Ten panels show the pictures of one camera, and none of them reads for a while.
#[test]
fn subscribers_of_the_same_large_messages_do_not_push_each_other_out() {
    run(async |env, broker| {
        let panels: Vec<Client> = (0..10).map(|n| client(&broker, &format!("panel-{n}"), &["t"])).collect();
        let picture = |n: u8| Bytes::from(vec![n; 1 << 20]);
        let publish = |n: u8| {
            let message = Message::of_node("t".into(), picture(n), 1, false);
            broker.borrow_mut().publish(message, false);
        };
        (0..4).for_each(publish);
        let counts = broker.borrow().counts.clone();
        assert_eq!((counts.of(events::CLIENT_CUT_OFF), counts.of(events::QOS1_LOST)), (0, 0));
        assert_eq!(broker.borrow().held(), 4 << 20, "each is there once");
        // A queue has its bound, and what is beyond it is lost for that client.
        (4..6).for_each(publish);
        assert_eq!((counts.of(events::CLIENT_CUT_OFF), counts.of(events::QOS1_LOST)), (0, 20));
        // What a client is half-way through reading counts, too.
        let mut out = Outbox::default();
        broker.borrow_mut().fill(&panels[0].0, &panels[0].1, &mut out, env.now());
        for (id, handle) in &panels {
            broker.borrow_mut().detach(id, handle, env.now());
        }
        assert_eq!(broker.borrow().held(), 1 << 20);
        drop(out);
        assert_eq!(broker.borrow().held(), 0);
    });
}

/// Clients that hold different messages still have one bound together.
#[test]
fn what_all_clients_hold_together_has_a_bound_and_who_holds_most_gives_way() {
    run(async |_env, broker| {
        let clients: Vec<Client> =
            (0..6).map(|n| client(&broker, &format!("c{n}"), &[format!("t{n}").as_str()])).collect();
        for n in 0..6 {
            for _ in 0..4 {
                let message = Message::of_node(format!("t{n}"), Bytes::from(vec![n; 1 << 20]), 1, false);
                broker.borrow_mut().publish(message, false);
            }
        }
        let counts = broker.borrow().counts.clone();
        let gone = clients.iter().filter(|(_, handle)| handle.is_closing()).count();
        assert_eq!((counts.of(events::CLIENT_CUT_OFF), gone), (2, 2));
        assert!(broker.borrow().held() <= plan::HELD_BYTES, "{}", broker.borrow().held());
    });
}
