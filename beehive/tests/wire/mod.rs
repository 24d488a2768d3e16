//! A message enum that crosses links, with a codec of one byte.

use std::time::Duration;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Connection, Hello, Link, LinkError, PeerName, Protocol, Routes};
use beehive::testing::Probe;
use beehive::{Address, AskError, Env, Lane, Message, Reply};

/// Runs a test on a paused clock.
#[allow(dead_code, reason = "QUIC needs a real one")]
pub(crate) fn run(test: impl AsyncFnOnce(Env)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}

#[derive(Debug)]
pub(crate) enum Talk {
    Say(Vec<u8>),
    Hurry,
    Length(Vec<u8>, Reply<usize>),
}

impl Message for Talk {
    fn name(&self) -> &'static str {
        match self {
            Talk::Say(_) => "Say",
            Talk::Hurry => "Hurry",
            Talk::Length(..) => "Length",
        }
    }
    fn lane(&self) -> Lane {
        if matches!(self, Talk::Hurry) { Lane::Control } else { Lane::Work }
    }
}

impl Wire for Talk {
    const MAILBOX: &'static str = "talk";

    fn encode(self, _: &Protocol) -> Result<Outgoing, EncodeError> {
        let with = |kind: u8, text: Vec<u8>| [vec![kind], text].concat();
        Ok(match self {
            Talk::Say(text) => Outgoing { body: with(1, text), reply: None },
            Talk::Hurry => Outgoing { body: vec![2], reply: None },
            Talk::Length(text, reply) => Outgoing {
                body: with(3, text),
                reply: Some(Box::new(move |answer: Result<Vec<u8>, AskError>| match answer {
                    Ok(bytes) => {
                        reply.send(bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
                    }
                    Err(why) => reply.fail(why),
                })),
            },
        })
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        match (body.split_first(), reply) {
            (Some((1, text)), None) => Ok(Talk::Say(text.to_vec())),
            (Some((2, [])), None) => Ok(Talk::Hurry),
            (Some((3, text)), Some(to)) => Ok(Talk::Length(
                text.to_vec(),
                Reply::carried(move |answer: Result<usize, AskError>| match answer {
                    Ok(length) => to.send(length.to_be_bytes().to_vec()),
                    Err(why) => to.fail(why.to_string()),
                }),
            )),
            _ => Err(DecodeError::new("no talk".to_owned())),
        }
    }
}

/// What arrives, and from whom.
#[derive(Debug)]
pub(crate) struct Heard {
    pub from: String,
    pub talk: Talk,
}

impl Message for Heard {
    fn name(&self) -> &'static str {
        self.talk.name()
    }
    fn lane(&self) -> Lane {
        self.talk.lane()
    }
}

pub(crate) fn routes(to: Address<Heard>) -> Routes {
    Routes::new().accept(to, |talk: Talk, peer: &PeerName| Heard { from: peer.as_str().to_owned(), talk })
}

/// Both ends of a link: `edge` greets, `cloud` lets it in with a probe as its only mailbox of `capacity`.
pub(crate) async fn link(
    env: &Env,
    edge: Box<dyn Connection>,
    cloud: Box<dyn Connection>,
    capacity: usize,
) -> (Result<Link, LinkError>, Result<Link, LinkError>, Probe<Heard>) {
    let (probe, heard) = Probe::new(env, capacity);
    let greeting = Hello::of(cloud.peer().as_str());
    let greet = Link::connect(env, edge, &greeting, Routes::new());
    let meet =
        async { beehive::link::IncomingLink::read_hello(env, cloud).await?.admit(routes(heard)).await };
    let (edge, cloud) = futures::join!(greet, meet);
    (edge, cloud, probe)
}

pub(crate) const LONG: Duration = Duration::from_secs(5);
