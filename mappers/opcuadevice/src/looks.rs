//! The looks whether what a server has sent by itself is still all, and what it sends no more because an answer was too large.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framework::Subscription;
use opcua_client::Session;
use opcua_types::{Error, NodeId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::items::{Item, create_items};
use crate::last_sent::LastSent;
use crate::reads::Reads;
use crate::sizes::{self, Sent};
use crate::status;
use crate::visitor::Visitor;

/// 5 s between two reads of what is too large to be sent with the others.
const ALONE_EVERY: Duration = Duration::from_secs(5);
/// 1 s between two looks for what was lost: others may be why it is lost again and again.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// A property that the server sends, or has sent.
pub(crate) struct Watched {
    item: Item,
    /// The server's number for it. None: it did not take it the last time, or it is not to send it.
    id: Option<u32>,
    /// About how large its value was at the last look. None: too large for an answer.
    bytes: Option<usize>,
    /// It would keep the others out of an answer, and is read alone.
    is_aside: bool,
}

impl Watched {
    /// With the server's number for it.
    pub(crate) fn new(item: Item, id: u32) -> Self {
        Watched { item, id: Some(id), bytes: Some(0), is_aside: false }
    }

    fn sent(&self) -> Sent {
        Sent { place: self.item.place, bytes: self.bytes, queue: self.item.monitoring.queue }
    }
}

/// What a look is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// It is time to look at all.
    Now,
    /// Something was to come that did not, of what the server sends.
    Lost,
    /// What it does not send with the others may have changed.
    Alone,
}

impl Why {
    fn is_for(self, watched: &Watched) -> bool {
        match self {
            Why::Now => true,
            Why::Lost => watched.id.is_some(),
            Why::Alone => watched.is_aside && watched.bytes.is_some(),
        }
    }
}

/// Looks now and then at what a server sends by itself.
pub(crate) struct Looks {
    pub(crate) session: Arc<Session>,
    pub(crate) subscription: u32,
    pub(crate) items: Vec<Watched>,
    pub(crate) told: Arc<Mutex<LastSent>>,
    pub(crate) values: Subscription,
    pub(crate) reads: Reads,
    pub(crate) items_max: usize,
    /// How often what the server sent did not come.
    pub(crate) losses: watch::Receiver<u64>,
    /// That was so: no more is to be sent than an answer can bring.
    pub(crate) is_bounded: bool,
}

impl Looks {
    /// Until the connection ends.
    pub(crate) async fn every(mut self, pause: Duration) {
        let mut all_at = Instant::now() + pause;
        let mut alone_at = Instant::now() + ALONE_EVERY;
        loop {
            let is_any_alone = self.items.iter().any(|one| Why::Alone.is_for(one));
            let next = if is_any_alone { all_at.min(alone_at) } else { all_at };
            let why = tokio::select! {
                lost = self.losses.changed() => match lost {
                    Ok(()) => Why::Lost,
                    Err(_) => return,
                },
                () = sleep_until(next) => if Instant::now() >= all_at { Why::Now } else { Why::Alone },
            };
            // What the connection is like others find out.
            if let Err(error) = self.look(why).await {
                tracing::debug!(
                    reason = status::named(error.status()),
                    "what the server sends was not looked at"
                );
                if why == Why::Lost {
                    self.losses.mark_changed();
                }
            }
            match why {
                Why::Now => all_at = Instant::now() + pause,
                Why::Alone => {}
                Why::Lost => tokio::time::sleep(LOST_PAUSE).await,
            }
            if why != Why::Lost {
                alone_at = Instant::now() + ALONE_EVERY;
            }
        }
    }

    /// Reads what the look is for, and has the server send anew what it does not send any more.
    async fn look(&mut self, why: Why) -> Result<(), Error> {
        self.is_bounded |= why == Why::Lost;
        let not_sent = self.read(why).await?;
        let back = if self.is_bounded { self.bound().await } else { Vec::new() };
        // What was lost on its way to us the server has sent, and will send again when it changes.
        let not_sent = not_sent.into_iter().filter(|_| why != Why::Lost);
        let anew: Vec<usize> = not_sent.chain(back).filter(|place| !self.is_aside(*place)).collect();
        if anew.is_empty() { Ok(()) } else { self.renew(&anew).await }
    }

    /// Tells what is found, and answers with those that the server does not send.
    async fn read(&mut self, why: Why) -> Result<Vec<usize>, Error> {
        let Looks { items, told, values, reads, session, .. } = self;
        let (mut sizes, mut not_sent) = (Vec::new(), Vec::new());
        let is_refused = |one: &&Watched| one.id.is_none() && !one.is_aside;
        let refused: Vec<usize> = items.iter().filter(is_refused).map(|one| one.item.place).collect();
        let mut rest: Vec<(usize, NodeId, &Visitor)> = items
            .iter()
            .filter(|one| why.is_for(one))
            .map(|one| (one.item.place, one.item.node.clone(), &one.item.visitor))
            .collect();
        // Once for each: what was not sent from one look to the next counts, not from one request to the next.
        rest.iter().for_each(|(place, ..)| lock(told).look_begins(*place));
        let mut outcome = Ok(());
        while !rest.is_empty() {
            let found = match reads.read(session, &rest).await {
                Ok(found) if !found.is_empty() => found,
                Ok(_) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            rest.retain(|(place, ..)| !found.iter().any(|one| one.place == *place));
            let mut told = lock(told);
            for one in found {
                sizes.push((one.place, one.bytes));
                let Some(look) = one.outcome.and_then(|outcome| told.found(one.place, outcome)) else {
                    continue;
                };
                // Of what it did not take there may be more now.
                if look.is_lost || (look.outcome.is_ok() && refused.contains(&one.place)) {
                    not_sent.push(one.place);
                }
                values.push(one.place, look.outcome);
            }
        }
        for (place, bytes) in sizes {
            if let Some(one) = items.iter_mut().find(|one| one.item.place == place) {
                one.bytes = bytes;
            }
        }
        outcome.map(|()| not_sent)
    }

    /// Has the server send no more than an answer can bring, and answers with what it may send again.
    async fn bound(&mut self) -> Vec<usize> {
        let fitting = sizes::fitting(self.items.iter().map(Watched::sent));
        let (mut back, mut old) = (Vec::new(), Vec::new());
        for one in &mut self.items {
            let is_fit = fitting.contains(&one.item.place);
            if is_fit && one.is_aside {
                one.is_aside = false;
                back.push(one.item.place);
            } else if !is_fit && !one.is_aside {
                one.is_aside = true;
                old.extend(one.id.take());
                tracing::warn!(node = %one.item.node, bytes = one.bytes, "what the server sends was too large for an answer: this is read alone from now on");
            }
        }
        self.take_back(&old).await;
        back
    }

    fn is_aside(&self, place: usize) -> bool {
        self.items.iter().any(|one| one.item.place == place && one.is_aside)
    }

    /// A server that has forgotten items with their nodes has none to take back.
    async fn take_back(&self, ids: &[u32]) {
        if !ids.is_empty()
            && let Err(error) = self.session.delete_monitored_items(self.subscription, ids).await
        {
            tracing::debug!(
                reason = status::named(error.status()),
                "items that are not sent any more were not taken back"
            );
        }
    }

    /// Has the server send these anew, beginning with what they are now.
    async fn renew(&mut self, places: &[usize]) -> Result<(), Error> {
        let is_meant = |one: &Watched| places.contains(&one.item.place);
        let old: Vec<u32> =
            self.items.iter_mut().filter(|one| is_meant(one)).filter_map(|one| one.id.take()).collect();
        self.take_back(&old).await;
        let items: Vec<&Item> = self.items.iter().filter(|one| is_meant(one)).map(|one| &one.item).collect();
        let ids = create_items(&self.session, self.subscription, &items, &mut self.items_max).await?;
        for one in self.items.iter_mut().filter(|one| is_meant(one)) {
            one.id = ids.get(&one.item.place).copied();
            tracing::info!(node = %one.item.node, taken = one.id.is_some(), "the server did not send this any more, and is asked anew");
        }
        Ok(())
    }
}

pub(crate) fn lock(told: &Mutex<LastSent>) -> MutexGuard<'_, LastSent> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
