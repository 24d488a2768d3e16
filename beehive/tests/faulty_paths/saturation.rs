//! A link that is filled to the brim by work still carries control and its own pings in time. On a paused clock.

use std::time::Duration;

use crate::pipe::{self, Pipe};
use crate::wire::run;
use crate::wire::{Talk, link};
use beehive::link::memory::{NetworkPath, pair};
use beehive::link::{Connection, PeerName};
use beehive::{Env, Moment};

/// 256 kbit/s, as in a bad link's scene.
const SLOW: u64 = 32_000;
/// Nothing urgent is later than this.
const IN_TIME: Duration = Duration::from_secs(2);
const MINUTES: Duration = Duration::from_secs(240);

/// Four minutes of as much work as goes, a control message every seven seconds. Answers how long each took.
async fn fill(env: &Env, edge: Box<dyn Connection>, cloud: Box<dyn Connection>) -> (Vec<Duration>, usize) {
    let (edge, cloud, mut probe) = link(env, edge, cloud, 4).await;
    let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
    let (bulk, urgent) = (edge.remote::<Talk>(), edge.remote::<Talk>());
    env.spawn(async move { while bulk.tell(Talk::Say(vec![0; 1_000_000])).await.is_ok() {} });
    let until = env.now() + MINUTES;
    let (mut late, mut carried) = (Vec::new(), 0);
    let mut asked: Option<Moment> = None;
    let mut next = env.now() + Duration::from_secs(7);
    while env.now() < until {
        if asked.is_none() && env.now() >= next {
            urgent.try_tell(Talk::Hurry).unwrap();
            asked = Some(env.now());
            next = env.now() + Duration::from_secs(7);
        }
        match probe.next(Duration::from_millis(10)).await.map(|heard| heard.talk) {
            Some(Talk::Say(text)) => carried += text.len(),
            Some(Talk::Hurry) => late.push(env.now().since(asked.take().unwrap())),
            Some(Talk::Length(..)) | None => {}
        }
    }
    // Pings had their answers: neither end has given up.
    assert_eq!(env.timeout(Duration::ZERO, edge.ended()).await, None);
    assert_eq!(env.timeout(Duration::ZERO, cloud.ended()).await, None);
    (late, carried)
}

fn check(late: &[Duration], carried: usize) {
    assert!(late.len() >= 30, "{}", late.len());
    let longest = late.iter().max().unwrap();
    assert!(*longest <= IN_TIME, "{longest:?}");
    // Urgency is not bought with the link: most of what it carries is work.
    assert!(carried as u64 > SLOW * MINUTES.as_secs() * 7 / 10, "{carried}");
}

#[test]
fn control_passes_a_slow_pipe_that_takes_megabytes_in_advance() {
    run(async |env| {
        let one_way = Duration::from_millis(300);
        let (edge, cloud) = pipe::ends(&env, Pipe { bytes_per_second: SLOW, one_way, deep: 512 });
        let (late, carried) = fill(&env, edge, cloud).await;
        check(&late, carried);
    });
}

#[test]
fn control_passes_a_slow_network_path_with_streams_of_its_own() {
    run(async |env| {
        let network_path = NetworkPath::new();
        network_path.slow_down(&env.clock(), SLOW);
        let (edge, cloud) =
            pair(&network_path, PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
        let (late, carried) = fill(&env, Box::new(edge), Box::new(cloud)).await;
        check(&late, carried);
    });
}
