//! Faults strike, and are put right.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::link::memory::{Direction, NetworkPath};
use contract::report::OutboxQueue;
use edge_store::{Class, Write};
use harness::StartedContainer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::api::Path;
use crate::clock::Jump;
use crate::fault::Fault;
use crate::probes::Side;
use crate::run::Run;
use crate::world::Process;

/// 22 s: silence is noticed after ten, the CloudCore that served last is tried for six, and then the others are.
const LINKED_WITHIN: Duration = Duration::from_secs(22);

impl Run {
    pub(crate) async fn strike(&mut self) {
        let fault = Fault::ALL[self.random.random_range(0..Fault::ALL.len())];
        let number = self.random.random_range(0..self.world.nodes.len());
        let struck = match fault {
            Fault::Cut | Fault::CutUp | Fault::CutDown | Fault::Slow | Fault::Delayed | Fault::Reordered => {
                self.strike_network_path(fault, number);
                true
            }
            Fault::Rebound => self.rebind(number).await,
            Fault::Silenced => {
                self.some_network_paths(number).iter().for_each(NetworkPath::fall_silent);
                true
            }
            Fault::AnswerLost => {
                let side = if self.random.random() { Side::Node } else { Side::Cloud };
                self.world.nodes[number].answer_loss.lay(side);
                self.say(format!("the next answer of {side:?} at node {number} gets lost"));
                // Something that will be answered, and something newer while the answer is missed.
                self.report(number).await;
                let pause = self.random.random_range(0..25_000);
                self.world.env.sleep(Duration::from_millis(pause)).await;
                self.report(number).await;
                // It strikes when there is an answer.
                return;
            }
            Fault::NodeKilled => {
                self.kill_a_node(number).await;
                true
            }
            Fault::CloudKilled => {
                self.kill_a_cloud().await;
                true
            }
            Fault::PanicWhileStopping => self.panic_while_stopping().await,
            Fault::ActorPanicked | Fault::TaskPanicked => {
                self.plan_a_panic();
                // It strikes when there is such a message.
                return;
            }
            Fault::DiskFull => {
                self.world.nodes[number].disk_full.store(true, Ordering::Relaxed);
                true
            }
            Fault::ApiAway => {
                self.some_paths().iter().for_each(|path| path.set_away(true));
                true
            }
            Fault::ApiSlow => {
                self.some_paths().iter().for_each(|path| path.set_slow(true));
                true
            }
            Fault::Takeover => self.take_over(number).await,
            Fault::ContainerKilled => self.kill_a_container(number),
            Fault::ContainerEnded => self.end_a_job(number),
            Fault::RuntimeWiped => self.wipe_a_runtime(number).await,
            Fault::ReportUnknown => self.leave_a_later_row(number).await,
            Fault::ClockJumped => {
                self.jump_a_clock(number).await;
                true
            }
        };
        if struck {
            self.struck(fault, 1);
            self.say(format!("{fault:?} at node {number}"));
        }
    }

    /// All of a node's network paths, or that to one CloudCore.
    fn some_network_paths(&mut self, number: usize) -> Vec<NetworkPath> {
        let network_paths = self.world.nodes[number].network_paths.clone();
        match self.random.random_range(0..=network_paths.len()) {
            0 => network_paths,
            one => vec![network_paths[one - 1].clone()],
        }
    }

    /// The paths of all CloudCores to the API server, or that of one.
    fn some_paths(&mut self) -> Vec<Path> {
        let paths: Vec<Path> = self.world.clouds.iter().map(|cloud| cloud.path.clone()).collect();
        match self.random.random_range(0..=paths.len()) {
            0 => paths,
            one => vec![paths[one - 1].clone()],
        }
    }

    fn strike_network_path(&mut self, fault: Fault, number: usize) {
        let clock = self.world.env.clock();
        let rate = self.random.random_range(500..20_000);
        let delay = Duration::from_millis(self.random.random_range(20..2_000));
        for network_path in self.some_network_paths(number) {
            if fault == Fault::Cut {
                network_path.cut();
            } else if fault == Fault::CutUp {
                network_path.cut_direction(Direction::ToAcceptor);
            } else if fault == Fault::CutDown {
                network_path.cut_direction(Direction::ToDialler);
            } else if fault == Fault::Slow {
                network_path.slow_down(&clock, rate);
            } else if fault == Fault::Delayed {
                network_path.hold_back(&clock, move || delay);
            } else {
                let lots = Arc::new(Mutex::new(StdRng::seed_from_u64(self.random.random())));
                network_path.hold_back(&clock, move || {
                    let mut lots = lots.lock().unwrap_or_else(PoisonError::into_inner);
                    Duration::from_millis(lots.random_range(0..1_500))
                });
            }
        }
    }

    /// Nothing is lost by it, and nobody need notice.
    async fn rebind(&mut self, number: usize) -> bool {
        let network_paths = self.world.nodes[number].network_paths.clone();
        if network_paths.iter().any(NetworkPath::is_cut) {
            return false;
        }
        network_paths.iter().for_each(NetworkPath::cut);
        let pause = self.random.random_range(20..4_000);
        self.world.env.sleep(Duration::from_millis(pause)).await;
        network_paths.iter().for_each(NetworkPath::mend);
        true
    }

    /// The node says something to a CloudCore that hardly reaches the API server, and something newer to another.
    async fn take_over(&mut self, number: usize) -> bool {
        let network_paths = self.world.nodes[number].network_paths.clone();
        if network_paths.len() < 2 {
            return false;
        }
        let old = self.random.random_range(0..network_paths.len());
        // Whatever else was wrong would only keep the two from meeting.
        self.world.nodes[number].disk_full.store(false, Ordering::Relaxed);
        for cloud in &self.world.clouds {
            cloud.path.set_away(false);
            cloud.path.set_slow(false);
        }
        network_paths.iter().for_each(NetworkPath::speed_up);
        let path = self.world.clouds[old].path.clone();
        for (at, network_path) in network_paths.iter().enumerate() {
            if at == old { network_path.mend() } else { network_path.cut() }
        }
        self.wait(LINKED_WITHIN).await;
        // The node hears nothing any more, and is still heard.
        network_paths[old].cut_direction(Direction::ToDialler);
        self.wait(Duration::from_secs(7)).await;
        path.set_stuck(true);
        self.report(number).await;
        let pause = self.random.random_range(500..3_000);
        self.wait(Duration::from_millis(pause)).await;
        for (at, network_path) in network_paths.iter().enumerate() {
            if at == old { network_path.cut() } else { network_path.mend() }
        }
        // Silence is noticed by now, and the old CloudCore tried for six seconds.
        self.wait(Duration::from_secs(9)).await;
        self.report(number).await;
        let pause = self.random.random_range(500..2_000);
        self.wait(Duration::from_millis(pause)).await;
        path.set_stuck(false);
        true
    }

    /// How many turns of its tasks a daemon still has: it dies at any await.
    async fn some_turns(&mut self) -> u64 {
        let after = self.random.random_range(0..200);
        self.world.env.sleep(Duration::from_millis(after)).await;
        self.random.random_range(0..300)
    }

    async fn kill_a_node(&mut self, number: usize) {
        let turns = self.some_turns().await;
        self.world.limit_turns(Process::Node(number), turns).await;
        self.world.kill_node(number).await;
        self.stay_away().await;
        self.world.start_node(number).await;
    }

    async fn kill_a_cloud(&mut self) {
        let number = self.random.random_range(0..self.world.clouds.len());
        let turns = self.some_turns().await;
        self.world.limit_turns(Process::Cloud(number), turns).await;
        self.world.kill_cloud(number).await;
        self.stay_away().await;
        self.world.start_cloud(number).await;
    }

    /// After a jump a node often boots, and loses its sandboxes: that is when it needs the order of what it has.
    async fn jump_a_clock(&mut self, number: usize) {
        let jump = Jump::ALL[self.random.random_range(0..Jump::ALL.len())];
        if self.random.random_range(0..4) == 0 {
            let cloud = self.random.random_range(0..self.world.clouds.len());
            self.world.clouds[cloud].clock.jump(jump);
            return self.say(format!("the clock of cloud {cloud} jumps: {jump:?}"));
        }
        self.world.nodes[number].clock.jump(jump);
        self.say(format!("the clock of node {number} jumps: {jump:?}"));
        if self.random.random_range(0..3) == 0 {
            self.kill_a_node(number).await;
        } else {
            self.lose_a_sandbox(number);
        }
    }

    fn lose_a_sandbox(&mut self, number: usize) {
        if let Some(victim) = self.some_container(number, |_| true) {
            self.world.nodes[number].runtime.lose_sandbox(&victim.id);
            self.container_ended(&victim);
        }
    }

    fn kill_a_container(&mut self, number: usize) -> bool {
        let Some(victim) = self.some_container(number, |_| true) else { return false };
        self.world.nodes[number].runtime.kill(&victim.id, 137);
        self.container_ended(&victim);
        true
    }

    /// The container of a pod that is not restarted ends well.
    fn end_a_job(&mut self, number: usize) -> bool {
        let jobs = self.jobs.clone();
        let Some(victim) = self.some_container(number, |seen| jobs.contains_key(&seen.pod)) else {
            return false;
        };
        self.world.nodes[number].runtime.kill(&victim.id, 0);
        self.container_ended(&victim);
        self.say(format!("{} has done its work", victim.pod));
        true
    }

    fn some_container(
        &mut self,
        number: usize,
        is_meant: impl Fn(&StartedContainer) -> bool,
    ) -> Option<StartedContainer> {
        let mut running = self.world.nodes[number].runtime.running();
        running.retain(is_meant);
        let count = running.len();
        (count > 0).then(|| running.swap_remove(self.random.random_range(0..count)))
    }

    fn container_ended(&mut self, seen: &StartedContainer) {
        *self.kills.entry(seen.uid.clone()).or_default() += 1;
        if let Some(job) = self.jobs.get_mut(&seen.pod) {
            job.has_ended = true;
        }
    }

    /// Everything that the runtime of a node knows is gone. What was known to have ended stays so.
    async fn wipe_a_runtime(&mut self, number: usize) -> bool {
        let kills_the_node = self.random.random();
        if kills_the_node {
            let turns = self.some_turns().await;
            self.world.limit_turns(Process::Node(number), turns).await;
            self.world.kill_node(number).await;
        }
        let ended: BTreeSet<String> = self
            .pods_of(number)
            .await
            .iter()
            .filter(|pod| ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase))
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let runtime = self.world.nodes[number].runtime.clone();
        for seen in runtime.running() {
            *self.kills.entry(seen.uid).or_default() += 1;
        }
        for seen in runtime.started() {
            if let Some(job) = self.jobs.get_mut(&seen.pod) {
                job.is_open |= !ended.contains(&seen.pod);
            }
        }
        runtime.wipe();
        if kills_the_node {
            self.stay_away().await;
            self.world.start_node(number).await;
        }
        true
    }

    /// As a later release leaves it that was rolled back.
    async fn leave_a_later_row(&mut self, number: usize) -> bool {
        let queues = OutboxQueue::ALL;
        let queue = queues[self.random.random_range(0..queues.len())];
        let Some(store) = self.world.nodes[number].store().cloned() else { return false };
        // Format 1, and a kind that no report has.
        let body = [&[1][..], &900_u16.to_le_bytes(), b"new"].concat();
        let row = Write::Enqueue { queue, class: Class::Status, key: format!("later/{queue:?}"), body };
        store.commit(vec![row]).await.is_ok()
    }

    /// One thing is put right.
    pub(crate) async fn mend(&mut self) {
        let number = self.random.random_range(0..self.world.nodes.len());
        match self.random.random_range(0..5) {
            0 => self.some_network_paths(number).iter().for_each(NetworkPath::mend),
            1 => self.some_network_paths(number).iter().for_each(NetworkPath::speed_up),
            2 => self.world.nodes[number].disk_full.store(false, Ordering::Relaxed),
            3 => self.some_paths().iter().for_each(|path| path.set_slow(false)),
            _ => self.some_paths().iter().for_each(|path| path.set_away(false)),
        }
        self.say(format!("something is mended at node {number}"));
    }

    /// Everything is put right.
    pub(crate) async fn heal(&mut self) {
        for cloud in &self.world.clouds {
            cloud.path.set_away(false);
            cloud.path.set_slow(false);
            cloud.path.set_stuck(false);
        }
        for node in &self.world.nodes {
            node.answer_loss.lift();
            node.network_paths.iter().for_each(NetworkPath::mend);
            node.network_paths.iter().for_each(NetworkPath::speed_up);
            node.disk_full.store(false, Ordering::Relaxed);
        }
        for number in 0..self.world.clouds.len() {
            self.world.start_cloud(number).await;
        }
        for number in 0..self.world.nodes.len() {
            self.world.start_node(number).await;
        }
        self.say("everything is put right".to_owned());
    }
}
