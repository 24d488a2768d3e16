//! What is wanted of devices while all report: from the cloud's API to the delta at a client of the node's broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::fleet::{self, Fleet, GOAL, WANTED};
use crate::kubectl::Kubectl;
use crate::{Samples, Testbed};

/// Half a second between two.
const EVERY: Duration = Duration::from_millis(500);
/// What is later than this has not come.
const LATEST: Duration = Duration::from_secs(10);

/// When a goal was first seen in the API, and at the device. Goals are numbered across all devices.
#[derive(Default)]
struct Seen {
    in_api: BTreeMap<u64, Instant>,
    at_device: BTreeMap<u64, Instant>,
}

/// Wants that go on until they are ended.
pub(super) struct Setpoints {
    stop: watch::Sender<bool>,
    wants: JoinHandle<Result<u64>>,
    listeners: Vec<AbortHandle>,
    seen: Arc<Mutex<Seen>>,
}

fn first(times: &mut BTreeMap<u64, Instant>, goal: u64) {
    times.entry(goal).or_insert_with(Instant::now);
}

impl Setpoints {
    pub(super) async fn start(testbed: &Testbed, fleet: &Fleet) -> Result<Setpoints> {
        let seen = Arc::<Mutex<Seen>>::default();
        let devices = fleet.devices().min(WANTED);
        let at_device = tokio::spawn(listen(subscribed(testbed, devices).await?, Arc::clone(&seen)));
        let in_api = tokio::spawn(watch_goals(testbed.kubectl.clone(), Arc::clone(&seen)));
        let (stop, stopped) = watch::channel(false);
        let wants = tokio::spawn(want(testbed.kubectl.clone(), devices, stopped));
        Ok(Setpoints { stop, wants, listeners: vec![at_device.abort_handle(), in_api.abort_handle()], seen })
    }

    /// From the API's own event of each to the delta. One that never came counts with [`LATEST`].
    pub(super) async fn end(self) -> Result<Samples> {
        self.stop.send_replace(true);
        let last = self.wants.await.context("the wants broke")??;
        let begun = Instant::now();
        let is_there = |goal: u64| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.at_device.contains_key(&goal) && seen.in_api.contains_key(&goal)
        };
        while !is_there(last) && begun.elapsed() < LATEST {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.listeners.iter().for_each(AbortHandle::abort);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = Samples::default();
        for (goal, from) in &seen.in_api {
            times.add(seen.at_device.get(goal).map_or(LATEST, |at| at.saturating_duration_since(*from)));
        }
        Ok(times)
    }
}

/// A new goal for one device after the other. Answers the last.
async fn want(kubectl: Kubectl, devices: usize, mut stop: watch::Receiver<bool>) -> Result<u64> {
    let mut goal = 0;
    while !*stop.borrow() {
        goal += 1;
        let number = usize::try_from(goal)? % devices;
        let patch = json!({"spec": {"properties": fleet::properties(Some(goal))}});
        kubectl.merge("device", &fleet::name(number), &patch).await?;
        // Either way the condition of the loop decides.
        let _ = tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await;
    }
    Ok(goal)
}

async fn watch_goals(kubectl: Kubectl, seen: Arc<Mutex<Seen>>) -> Result<()> {
    let path = format!(r#"{{.spec.properties[?(@.name=="{GOAL}")].desired.value}}"#);
    let mut watch = kubectl.watch("device", &path)?;
    while let Some(line) = watch.next().await {
        if let Some(goal) = line.trim().parse().ok().filter(|goal| *goal > 0) {
            first(&mut seen.lock().unwrap_or_else(PoisonError::into_inner).in_api, goal);
        }
    }
    Ok(())
}

/// A connection ends with its client.
type Connection = (AsyncClient, EventLoop);

async fn subscribed(testbed: &Testbed, devices: usize) -> Result<Connection> {
    let (host, port) = testbed.broker();
    let mut options = MqttOptions::new("load-setpoints", host, port);
    options.set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, 2 * WANTED);
    for number in 0..devices {
        client.subscribe(fleet::topic(number, "update/delta"), QoS::AtMostOnce).await?;
    }
    let mut granted = 0;
    while granted < devices {
        let event = tokio::time::timeout(LATEST, events.poll()).await.context("no SUBACK")??;
        granted += usize::from(matches!(event, Event::Incoming(Packet::SubAck(_))));
    }
    Ok((client, events))
}

async fn listen((_client, mut events): Connection, seen: Arc<Mutex<Seen>>) -> Result<()> {
    loop {
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await? else { continue };
        if let Some(goal) = goal(&publish.payload) {
            first(&mut seen.lock().unwrap_or_else(PoisonError::into_inner).at_device, goal);
        }
    }
}

/// What a delta says of the goal.
fn goal(payload: &[u8]) -> Option<u64> {
    let body: Value = serde_json::from_slice(payload).ok()?;
    body.get("twin")?.get(GOAL)?.pointer("/expected/value")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_without_the_goal_says_nothing() {
        let delta = json!({"twin": {GOAL: {"expected": {"value": "17"}}}}).to_string();
        assert_eq!(goal(delta.as_bytes()), Some(17));
        assert_eq!(goal(br#"{"twin":{}}"#), None);
    }
}
