//! The nodes: real EdgeCores in this process, each over a runtime in memory, with its own certificate, store and link.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use contract::metamanager::MetaMsg;
use contract::wire::META_MAILBOX;
use cri::Runtime as _;
use futures::StreamExt as _;
use harness::{Node, StandInRuntime};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use super::SharedWitness;
use super::objects::{COUNTER, IMAGE};
use super::volumes::Volumes;

/// Ten nodes share a thread, so that one that writes to its disk holds up few others.
const ON_A_THREAD: usize = 10;

/// One of them.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// Where it dials.
    pub(super) servers: String,
    /// What it stands on.
    pub(super) runtime: StandInRuntime,
}

impl Place {
    /// A node of this name that has joined in a folder of its own below `folder`.
    pub(super) fn new(name: String, folder: &Path, servers: String) -> Place {
        let runtime = StandInRuntime::default();
        runtime.add_image(IMAGE);
        Place { folder: folder.join(&name), name, servers, runtime }
    }
}

/// All of them. Dropping it ends them in order.
pub(super) struct Fleet {
    places: Vec<Place>,
    threads: Vec<JoinHandle<()>>,
    goes_on: watch::Sender<bool>,
    /// Who looks at their runtimes.
    lookers: JoinSet<Result<()>>,
}

impl Fleet {
    /// Starts nodes that have joined.
    pub(super) fn start(places: Vec<Place>, witness: &SharedWitness) -> Result<Fleet> {
        let goes_on = watch::Sender::new(true);
        let volumes = Arc::new(Volumes::new(witness.clone())?);
        let mut fleet = Fleet { places, threads: Vec::new(), goes_on, lookers: JoinSet::new() };
        for place in fleet.places.clone() {
            fleet.lookers.spawn(follow(place, witness.clone(), Arc::clone(&volumes)));
        }
        fleet.lookers.spawn(async move { volumes.follow().await });
        for places in fleet.places.chunks(ON_A_THREAD) {
            let (places, witness, goes_on) = (places.to_vec(), witness.clone(), fleet.goes_on.subscribe());
            let thread = std::thread::Builder::new().name("nodes".to_owned());
            let run = move || harness::run(async move || run(places, &witness, goes_on).await);
            fleet.threads.push(thread.spawn(run).context("start a thread of nodes")?);
        }
        Ok(fleet)
    }

    /// Fails when nodes have ended by themselves, or nobody looks at them any more.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            bail!("a thread of {ON_A_THREAD} nodes has ended by itself: it says why above");
        }
        match self.lookers.try_join_next() {
            None => Ok(()),
            Some(ended) => match ended {
                Ok(Err(error)) => Err(error),
                _ => bail!("nobody looks at the nodes any more"),
            },
        }
    }

    /// Containers that still run somewhere.
    pub(super) fn running(&self) -> Vec<String> {
        let of = |place: &Place| {
            let running = place.runtime.running().into_iter();
            running
                .map(|one| format!("{} of pod {} on {}", one.name, one.pod, place.name))
                .collect::<Vec<_>>()
        };
        self.places.iter().flat_map(of).collect()
    }

    /// The container of a pod whose name begins so is killed, on one node.
    pub(super) fn kill_one(&self, prefix: &str) -> Result<()> {
        let place = self.places.first().context("there is no node")?;
        let running = place.runtime.running();
        let found = running.iter().find(|one| one.pod.starts_with(prefix)).context("it does not run")?;
        place.runtime.kill(&found.id, 137);
        Ok(())
    }

    /// Ends them in order.
    pub(super) fn end(&mut self) {
        self.lookers.abort_all();
        self.goes_on.send_replace(false);
        for thread in self.threads.drain(..) {
            // What went wrong there was said there.
            let _ = thread.join();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        block_in_place(|| self.end());
    }
}

/// Nodes of one thread.
async fn run(places: Vec<Place>, witness: &SharedWitness, mut goes_on: watch::Receiver<bool>) {
    let mut nodes = Vec::new();
    for place in places {
        let Place { name, folder, servers, runtime } = place;
        let mut node = Node::joined(&name, folder, servers, runtime);
        node.start().await;
        let (shared, of) = (witness.clone(), name.clone());
        // It has not dialled yet: nothing else of this thread has run since.
        let tapped = node.core().tap(META_MAILBOX, move |message: &MetaMsg| {
            let (now, mut witness) = shared.open();
            match message {
                MetaMsg::LinkUp { .. } => witness.linked(now, &of),
                MetaMsg::LinkDown => witness.unlinked(now, &of),
                _ => {}
            }
        });
        if let Err(error) = tapped {
            let (now, mut witness) = witness.open();
            witness.violation(now, &format!("node {name}: nobody sees its links: {error}"));
        }
        nodes.push(node);
    }
    // Nobody tells any more: the end, too.
    let _ = goes_on.wait_for(|goes_on| !goes_on).await;
    futures::future::join_all(nodes.iter_mut().map(Node::stop)).await;
}

/// Tells what the runtime of a node starts.
async fn follow(place: Place, witness: SharedWitness, volumes: Arc<Volumes>) -> Result<()> {
    let mut events = place.runtime.events();
    let mut told = 0;
    loop {
        for container in place.runtime.started().into_iter().skip(told) {
            told += 1;
            {
                let (now, mut witness) = witness.open();
                witness.started(now, &place.name, &container.uid, (&container.pod, &container.name));
            }
            if container.pod.starts_with(COUNTER) {
                let volume =
                    format!("kubelet/pods/{}/volumes/kubernetes.io~configmap/{COUNTER}", container.uid);
                volumes.watch(&place.name, place.folder.join(volume))?;
            }
        }
        // Some may have been lost, which nothing is: all are read.
        if events.next().await.is_none() {
            events = place.runtime.events();
        }
    }
}
