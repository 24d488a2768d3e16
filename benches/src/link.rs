//! A remote mailbox over QUIC on loopback, beside bare QUIC streams that carry the same bodies under the same TLS.
//!
//! Both ends share one thread, as nothing else would be the same for both.

mod raw;
mod relay;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use beehive::link::quic::{Credentials, QuicAcceptor};
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Acceptor as _, Dialer as _, Hello, IncomingLink, Link, PeerName, Protocol, Routes};
use beehive::{Actor, Address, AskError, Capacity, Env, Fault, Flow, Hive, Message, Policy, Reply};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use raw::RawQuic;
use relay::Relay;

const ROUNDS: usize = 15;
const ASKS: u32 = 300;
const SOON: Duration = Duration::from_secs(30);
/// A report, and a batch of objects.
const BODIES: [(usize, u32, &str); 2] = [
    (256, 4_000, "tell, 256 bytes, a message of a flood"),
    (16 << 10, 400, "tell, 16 KiB, a message of a flood"),
];
/// Messages whose packets are counted.
const COUNTED: u32 = 2_000;

enum EchoMsg {
    Say(Vec<u8>),
    Echo(Vec<u8>, Reply<Vec<u8>>),
}

impl Message for EchoMsg {
    fn name(&self) -> &'static str {
        match self {
            EchoMsg::Say(_) => "Say",
            EchoMsg::Echo(..) => "Echo",
        }
    }
}

impl Wire for EchoMsg {
    const MAILBOX: &'static str = "talk";

    fn encode(self, _: &Protocol) -> Result<Outgoing, EncodeError> {
        Ok(match self {
            EchoMsg::Say(body) => Outgoing { body, reply: None },
            EchoMsg::Echo(body, reply) => Outgoing {
                body,
                reply: Some(Box::new(move |answer: Result<Vec<u8>, AskError>| match answer {
                    Ok(body) => reply.send(body),
                    Err(why) => reply.fail(why),
                })),
            },
        })
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        Ok(match reply {
            None => EchoMsg::Say(body.to_vec()),
            Some(to) => EchoMsg::Echo(
                body.to_vec(),
                Reply::carried(move |answer: Result<Vec<u8>, AskError>| match answer {
                    Ok(body) => to.send(body),
                    Err(why) => to.fail(why.to_string()),
                }),
            ),
        })
    }
}

/// Echoes, and counts what it was told.
struct Listener(u32);

impl Actor for Listener {
    type Message = EchoMsg;
    async fn handle(&mut self, message: EchoMsg, _: &mut beehive::Context<EchoMsg>) -> Result<(), Fault> {
        match message {
            EchoMsg::Say(_) => self.0 += 1,
            // An empty one asks how many were told.
            EchoMsg::Echo(body, reply) if body.is_empty() => {
                reply.send(std::mem::take(&mut self.0).to_be_bytes().to_vec());
            }
            EchoMsg::Echo(body, reply) => reply.send(body),
        }
        Ok(())
    }
}

/// Both ends of a link.
struct BeehiveLink {
    edge: Link,
    _cloud: Link,
    echo: Address<EchoMsg>,
}

impl BeehiveLink {
    async fn connect(
        env: &Env,
        ca: &Ca,
        listener: Address<EchoMsg>,
        relayed: bool,
    ) -> Result<(BeehiveLink, Option<Relay>)> {
        let mut acceptor = QuicAcceptor::bind(loopback(), &ca.issue("cloud")?)?;
        let relay = if relayed { Some(Relay::start(acceptor.address()).await?) } else { None };
        let port = relay.as_ref().map_or(acceptor.address().port(), |relay| relay.port);
        let dialer = QuicDialer::new("127.0.0.1", port, &ca.issue("edge-1")?)?;
        let (dialled, accepted) = futures::join!(dialer.dial(), acceptor.accept());
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(env, dialled?, &greeting, Routes::new());
        let accepted = accepted.context("nobody arrived")?;
        let routes = Routes::new().accept(listener, |echo: EchoMsg, _: &PeerName| echo);
        let meet = async { IncomingLink::read_hello(env, accepted).await?.admit(routes).await };
        let (edge, cloud) = futures::join!(greet, meet);
        let edge = edge?;
        let echo = edge.remote::<EchoMsg>();
        Ok((BeehiveLink { edge, _cloud: cloud?, echo }, relay))
    }

    /// Microseconds a message, until the last one is handled.
    async fn flood(&self, body: usize, count: u32) -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..count {
            self.echo.tell(EchoMsg::Say(vec![b'x'; body])).await?;
        }
        let told = self.echo.ask(SOON, |reply| EchoMsg::Echo(Vec::new(), reply)).await?;
        arrived(&told, count)?;
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    }

    async fn echo(&self, body: usize) -> Result<f64> {
        let begun = Instant::now();
        let answer = self.echo.ask(SOON, |reply| EchoMsg::Echo(vec![b'x'; body], reply)).await?;
        if answer.len() != body {
            bail!("{} bytes came back", answer.len());
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    }

    /// Bytes of frames so far, both ways.
    fn framed(&self) -> u64 {
        self.edge.traffic().sent() + self.edge.traffic().received()
    }
}

pub(crate) fn run() -> Result<Table> {
    say("\nlink: messages over QUIC on loopback …");
    actix_rt::System::new().block_on(measure())
}

async fn measure() -> Result<Table> {
    let env = Env::real();
    let ca = Ca::new()?;
    let mut hive = Hive::new("bench", env.clone());
    let mailbox = hive.mailbox::<EchoMsg>("listener", Capacity::new(64, "a bench's choice"));
    let listener = hive.grant("link", &mailbox, Flow::Ask);
    hive.supervise(mailbox, Policy::default(), || Listener(0));
    hive.open()?;

    let mut table = Table::new("link: both ends on one thread, QUIC over loopback");
    let (ours, _) = BeehiveLink::connect(&env, &ca, listener.clone(), false).await?;
    let (mut raw, _) = RawQuic::connect(&ca, false).await?;
    let mut rates = Vec::new();
    for (body, count, what) in BODIES {
        let (mut own, mut bare) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let times = (ours.flood(body, count).await?, raw.flood(body, count).await?);
            // The first round warms up and does not count.
            if round > 0 {
                own.push(times.0);
                bare.push(times.1);
            }
        }
        rates.push(format!("{:.0} of {body} bytes", 1e6 / summary(&own)?.median));
        add(&mut table, what, "µs", &own, &bare)?;
    }
    let (mut own, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ASKS * u32::try_from(ROUNDS)? {
        own.push(ours.echo(256).await?);
        bare.push(raw.echo(256).await?);
    }
    add(&mut table, "ask and answer, 256 bytes", "µs", &own, &bare)?;
    drop((ours, raw));

    let (own, bare, framed) = bytes(&env, &ca, listener).await?;
    add(&mut table, "UDP bytes both ways, a tell of 256", "bytes", &[own], &[bare])?;
    table.print();
    say(&format!("messages a second: {}", rates.join(", ")));
    say(&format!(
        "a frame's own bytes, credits included: {framed:.1} a message (bare: {} of length)",
        raw::PREFIX
    ));
    hive.shutdown(SOON).await;
    Ok(table)
}

fn summary(samples: &[f64]) -> Result<Summary> {
    Summary::of(samples).context("no samples")
}

fn add(table: &mut Table, what: &str, unit: &'static str, ours: &[f64], reference: &[f64]) -> Result<()> {
    let reference = Some(("bare QUIC stream", summary(reference)?));
    table.add(Row { what: what.to_owned(), unit, ours: summary(ours)?, reference, bar: Bar::None });
    Ok(())
}

/// What crosses a relay for each message of 256 bytes: ours, bare, and what our frames add to the body.
#[allow(clippy::cast_precision_loss)] // far below 2^52
async fn bytes(env: &Env, ca: &Ca, listener: Address<EchoMsg>) -> Result<(f64, f64, f64)> {
    const BODY: usize = 256;
    let (ours, relay) = BeehiveLink::connect(env, ca, listener, true).await?;
    let relay = relay.context("no relay")?;
    // The stream is open and paid for.
    ours.flood(BODY, 100).await?;
    let (crossed, framed) = (relay.crossed(), ours.framed());
    ours.flood(BODY, COUNTED).await?;
    let own = (relay.crossed() - crossed) as f64 / f64::from(COUNTED);
    let framed = (ours.framed() - framed) as f64 / f64::from(COUNTED) - BODY as f64;
    let (mut raw, relay) = RawQuic::connect(ca, true).await?;
    let relay = relay.context("no relay")?;
    raw.flood(BODY, 100).await?;
    let crossed = relay.crossed();
    raw.flood(BODY, COUNTED).await?;
    Ok((own, (relay.crossed() - crossed) as f64 / f64::from(COUNTED), framed))
}

fn arrived(answer: &[u8], count: u32) -> Result<()> {
    if answer == count.to_be_bytes() {
        Ok(())
    } else {
        bail!("{answer:?} instead of {count} messages arrived")
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// An authority for one run.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Result<Ca> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "bench authority");
        Ok(Ca(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn issue(&self, name: &str) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Credentials { certificate, key: key.serialize_pem().into(), authority: self.0.pem() })
    }
}
