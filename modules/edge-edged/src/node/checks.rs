//! The checks of the machine while edgecore runs: what stops pods, or the node, is a line of the log and a condition of the Node, each with its
//! cure. What is looked at, and what is said of it, is in `nodechecks`, by which `keadm` looks as well.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::edge::EdgeCore;
use contract::edged::EdgedMsg;
use nodechecks::leftovers::{self, Remains};
use nodechecks::{Beside, Finding, Host, daemon_sets, runtime};

use crate::dependencies::Dependencies;
use crate::events;

/// 5 min between looks at a machine that is well: what changes on one (a port that is taken, a file of the resolver's) changes seldom.
const EVERY: Duration = Duration::from_secs(300);
/// 30 s while something is not: who mends it waits for the word.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What is looked at, and how often.
#[derive(Debug, Clone)]
pub struct MachineChecks {
    /// The machine.
    pub host: Host,
    /// The node's settings: all of them, for they name its folders and ports.
    pub settings: Arc<EdgeCore>,
    /// Between looks at a machine that is well.
    pub every: Duration,
    /// Between looks at one that is not.
    pub again_after: Duration,
}

impl MachineChecks {
    /// Those of this machine: at the start, and every 5 minutes; every 30 s while something fails.
    pub fn here(settings: Arc<EdgeCore>) -> Self {
        MachineChecks { host: Host::here(), settings, every: EVERY, again_after: AGAIN_AFTER }
    }
}

/// Looks for as long as edgecore runs. A look takes 8 s at the most.
pub(crate) async fn look_for_ever(checks: MachineChecks, deps: Rc<Dependencies>) {
    let env = deps.env.clone();
    let (mut beside, mut known) = (Beside::default(), Vec::new());
    loop {
        let found = look(&checks, &mut beside, &deps).await;
        let failing = nodechecks::steady(&known, nodechecks::told(found));
        nodechecks::newly_failing(&known, &failing)
            .into_iter()
            .for_each(|finding| events::check_failed(&env, finding));
        nodechecks::passing_again(&known, &failing)
            .into_iter()
            .for_each(|check| events::check_passed(&env, check));
        let is_news = failing != known;
        deps.checks.replace(Some(failing.clone()));
        known = failing;
        if is_news {
            // With a full mailbox the timer's next look reports it.
            let _ = deps.edged.try_tell(EdgedMsg::Tick);
        }
        env.sleep(if known.is_empty() { checks.every } else { checks.again_after }).await;
    }
}

async fn look(
    checks: &MachineChecks,
    beside: &mut Beside<Vec<Finding>>,
    deps: &Rc<Dependencies>,
) -> Vec<Finding> {
    let MachineChecks { host, settings, .. } = checks.clone();
    let (store, machine_time) = (deps.store.clone(), deps.env.clock().machine());
    let local = move || {
        let mut found = nodechecks::of_machine(&host, &settings, machine_time, Some(std::process::id()));
        // What `join` writes is this node's own.
        found.push(leftovers::leftovers(&Remains::of(&host, &settings, Vec::new(), true)));
        found.push(daemon_sets::verdict(&store.daemon_sets()));
        found
    };
    let (seen, local) =
        tokio::join!(runtime::ask_one(deps.runtime.as_ref(), &deps.env), beside.look(local, &deps.env));
    let mut found = runtime::verdicts(&seen, &checks.settings, &checks.host);
    found.extend(local.unwrap_or_else(|| vec![nodechecks::silent()]));
    found
}
