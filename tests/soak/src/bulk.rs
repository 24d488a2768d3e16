//! A thousand objects for one node over a long way, and a reconnect with all of them held.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::log::{CLOUD_UNLINKED, NODE_UNLINKED};
use crate::pods::{self, APP, RunningContainer};
use crate::relay::{Direction, LinkFault, Packet};
use crate::testbed::{LONG, NODE};
use crate::{Console, Outcome, Testbed};

const POD: &str = "reader";
/// As many config maps as one pod needs.
const OBJECTS: usize = 1000;
/// 1 kB that nothing compresses; base64 of it is compressed back to little more.
const RANDOM_BYTES: usize = 1000;
/// 100 ms each way.
const ONE_WAY: Duration = Duration::from_millis(100);
/// First packet to last acknowledgement.
const BAR: Duration = Duration::from_secs(3);
/// Changed while the node is away.
const CHANGED: [usize; 3] = [7, 500, 999];
/// Of IP, both ways, handshake included.
const RECONNECT_BYTES: usize = 20_000;
/// More than what a silent link says, less than the first packet of a batch.
const LARGE: usize = 400;

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often a node away for a while comes back.
    pub reconnects: u32,
    /// Whether each packet of a reconnect is told.
    pub packets: bool,
    /// Decides what is in the objects.
    pub seed: u64,
}

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    Outcome::of(&format!("many objects over a long way, seed {}", options.seed), async |outcome| {
        story(testbed, options, console, outcome).await
    })
    .await
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut dice = SmallRng::seed_from_u64(options.seed);
    let maps: Vec<Value> = (0..OBJECTS).map(|number| map(number, &mut dice)).collect();
    console.at(&format!("making {OBJECTS} config maps in the cloud"));
    testbed.kubectl.create(&maps).await?;
    testbed.relay.inject(LinkFault::Delay(ONE_WAY));
    testbed.until_held(0).await?;
    testbed.relay.capture();
    testbed.kubectl.create(&[pod()]).await?;
    let done = testbed.until_held(OBJECTS + 1).await?;
    let packets = testbed.relay.captured();
    let first = packets.iter().find(|packet| packet.direction == Direction::Down && packet.bytes() > LARGE);
    let first = first.context("no large packet went to the node")?.at;
    let took = done.saturating_duration_since(first);
    let down = bytes(&packets, Direction::Down);
    outcome.row(
        &format!("{OBJECTS} objects of 1 kB over 200 ms, bar {} s", BAR.as_secs()),
        format!("{:.2} s, {down} B of IP to the node in {} packets", took.as_secs_f64(), packets.len()),
    );
    console.at(&format!("all are held: first packet to last acknowledgement {:.2} s", took.as_secs_f64()));
    if took > BAR {
        outcome.violation(format!("{OBJECTS} objects took {:.2} s", took.as_secs_f64()));
    }
    if down < OBJECTS * RANDOM_BYTES {
        outcome.violation(format!("{down} B are less than the objects: something else was measured"));
    }
    let (pod, _) = testbed
        .until("the pod runs with all of them", LONG, async |testbed| {
            Ok(pods::running(&testbed.host).await?.into_iter().find(|inside| inside.pod == POD))
        })
        .await?;
    told(testbed).await?;
    for number in 1..=options.reconnects {
        let (packets, begun) = reconnect(testbed, &pod, number, console, outcome).await?;
        if options.packets {
            Packet::tell(&packets, begun, console);
        }
    }
    Ok(())
}

/// The cloud has what the node says of the pod's start: else that, too, would cross with the three changes.
async fn told(testbed: &mut Testbed) -> Result<()> {
    let ((), _) = testbed
        .until("the cloud knows that the pod runs", LONG, async |testbed| {
            let Some(pod) = testbed.kubectl.get("pod", POD).await? else { return Ok(None) };
            let started = pod.pointer("/status/containerStatuses/0/started") == Some(&Value::Bool(true));
            let events = testbed.kubectl.list("events", "").await?;
            let said = events
                .iter()
                .any(|event| event["involvedObject"]["name"] == POD && event["reason"] == "Started");
            Ok((started && said).then_some(()))
        })
        .await?;
    Ok(())
}

/// Both ends give the link up, three objects change, and the link is back.
async fn reconnect(
    testbed: &mut Testbed,
    pod: &RunningContainer,
    number: u32,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<(Vec<Packet>, Instant)> {
    let (mut cloud, mut node) = testbed.words()?;
    testbed.relay.inject(LinkFault::Cut);
    let mut noticed = [false; 2];
    testbed
        .until("both ends have given the link up", LONG, async |_| {
            noticed[0] |= cloud.lines()?.iter().any(|line| line.contains(CLOUD_UNLINKED));
            noticed[1] |= node.lines()?.iter().any(|line| line.contains(NODE_UNLINKED));
            Ok((noticed == [true; 2]).then_some(()))
        })
        .await?;
    for at in CHANGED {
        let patch = json!({"data": {format!("round-{at:04}"): number.to_string()}});
        testbed.kubectl.merge("configmap", &name(at), &patch).await?;
    }
    testbed.relay.capture();
    let begun = Instant::now();
    testbed.relay.inject(LinkFault::Delay(ONE_WAY));
    // What the metrics showed before the link was cut may still stand there; what is in the pod has come over the new one.
    testbed
        .until("the three changes in the pod", LONG, async |_| {
            for at in CHANGED {
                if pod.file(&format!("/maps/round-{at:04}"))? != number.to_string() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await?;
    let done = testbed.until_held(OBJECTS + 1).await?;
    let packets = testbed.relay.captured();
    let (up, down) = (bytes(&packets, Direction::Up), bytes(&packets, Direction::Down));
    let took = done.saturating_duration_since(begun).as_secs_f64();
    let shown = format!("{} B of IP ({up} up, {down} down) in {took:.2} s", up + down);
    console.at(&format!("reconnect {number}: {shown}"));
    outcome.row(&format!("reconnect {number} with 3 changed, bar {RECONNECT_BYTES} B"), shown);
    if up + down > RECONNECT_BYTES {
        outcome.violation(format!("reconnect {number} took {} B", up + down));
    }
    Ok((packets, begun))
}

/// The pod is named by its environment, as the other pods of the soak are.
fn pod() -> Value {
    let sources: Vec<Value> = (0..OBJECTS).map(|at| json!({"configMap": {"name": name(at)}})).collect();
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "maps", "projected": {"sources": sources}}],
            "containers": [{
                "name": APP, "image": testhost::BUSYBOX, "command": ["sleep", "1000000"],
                "env": [field("POD_UID", "metadata.uid"), field("POD_NAME", "metadata.name")],
                "volumeMounts": [{"name": "maps", "mountPath": "/maps"}],
            }],
        },
    })
}

fn name(number: usize) -> String {
    format!("map-{number:04}")
}

/// A file of the volume is named by its key.
fn map(number: usize, dice: &mut SmallRng) -> Value {
    let mut random = vec![0; RANDOM_BYTES];
    dice.fill_bytes(&mut random);
    let data = json!({format!("bytes-{number:04}"): STANDARD.encode(random)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(number)}, "data": data})
}

fn bytes(packets: &[Packet], direction: Direction) -> usize {
    packets.iter().filter(|packet| packet.direction == direction).map(Packet::bytes).sum()
}
