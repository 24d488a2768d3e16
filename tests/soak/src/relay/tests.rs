use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Fixture {
    cloud: UdpSocket,
    edge: UdpSocket,
    relay: Relay,
}

async fn ends() -> Fixture {
    let cloud = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::start(cloud.local_addr().unwrap(), 1).await.unwrap();
    let edge = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    edge.connect(("127.0.0.1", relay.port)).await.unwrap();
    Fixture { cloud, edge, relay }
}

async fn heard(cloud: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = [0; 16];
    let (length, from) =
        tokio::time::timeout(SOON, cloud.recv_from(&mut packet)).await.expect("in time").unwrap();
    (packet[..length].to_vec(), from)
}

async fn dropped(relay: &Relay, count: u64) {
    let wait = async {
        while relay.dropped() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time");
}

#[tokio::test]
async fn a_lie_in_one_way_leaves_the_other() {
    let Fixture { cloud, edge, relay } = ends().await;
    edge.send(b"one").await.unwrap();
    let (_, client) = heard(&cloud).await;
    relay.inject(LinkFault::NothingUp);
    edge.send(b"lost").await.unwrap();
    cloud.send_to(b"heard", client).await.unwrap();
    let mut packet = [0; 16];
    assert_eq!(edge.recv(&mut packet).await.unwrap(), 5);
    dropped(&relay, 1).await;
    relay.inject(LinkFault::NothingDown);
    cloud.send_to(b"lost", client).await.unwrap();
    edge.send(b"two").await.unwrap();
    assert_eq!(heard(&cloud).await.0, b"two");
    dropped(&relay, 2).await;
    relay.inject(LinkFault::Cut);
    edge.send(b"lost").await.unwrap();
    dropped(&relay, 3).await;
}

#[tokio::test]
async fn a_rebound_client_has_another_port_and_is_answered_there() {
    let Fixture { cloud, edge, relay } = ends().await;
    edge.send(b"one").await.unwrap();
    let (_, before) = heard(&cloud).await;
    relay.rebind();
    edge.send(b"two").await.unwrap();
    let (_, after) = heard(&cloud).await;
    assert_ne!(before, after);
    cloud.send_to(b"to nobody", before).await.unwrap();
    cloud.send_to(b"here", after).await.unwrap();
    let mut packet = [0; 16];
    assert_eq!(edge.recv(&mut packet).await.unwrap(), 4);
}

#[test]
fn what_a_lie_makes_of_a_packet() {
    let mut state = State::new(1);
    let mut of = |fault| (0..300).map(|_| copies(fault, Direction::Up, 1, &mut state)).collect::<Vec<_>>();
    assert!(of(LinkFault::Delay(SOON)).iter().all(|copies| *copies == [SOON]));
    let overtaken = of(LinkFault::Reorder).iter().filter(|copies| !copies[0].is_zero()).count();
    assert!((50..150).contains(&overtaken), "{overtaken}");
    let twice = of(LinkFault::Duplicate).iter().filter(|copies| copies.len() == 2).count();
    assert!((100..200).contains(&twice), "{twice}");
}
