//! Publishes of QoS 2 that a client has sent and not released (MQTT 3.1.1, 4.3.3): their identifiers, all 65,535 if need be, as a
//! client of 3.1.1 is told no bound and would only come back to it.
//!
//! Beside an identifier stands a digest of its topic and payload. A client that has lost its memory, not its session, uses identifiers
//! anew that it has never released: what comes under one of these with another topic or payload is another message.

mod page;

use std::cell::RefCell;
use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Notify;

use crate::packet::Publish;
use crate::plan;
use page::Page;

/// How far a publish has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Subscribers have it; DeviceTwin or the store are waited for.
    Settling,
    /// Subscribers have it; DeviceTwin or the store did not take it, so it was not acknowledged.
    HandedOut,
    /// It was taken, and is acknowledged as often as it is sent again.
    Taken,
}

/// Which of the publishes under one identifier was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun(u64);

/// The unreleased publishes of one session by their packet identifiers. It outlives the connection that they came by, as what
/// settles does: one that is sent again over the next connection is known.
#[derive(Debug, Default)]
pub(crate) struct Unreleased {
    all: RefCell<All>,
    settled: Notify,
}

/// At most 256 pages of 96 bytes, and 4 bytes for each of [`plan::QOS2_DIGESTS`]: 40 KiB.
#[derive(Debug, Default)]
struct All {
    /// By their numbers.
    pages: Vec<Page>,
    /// In all pages.
    digests: usize,
    /// Those of which something is waited for: [`plan::PENDING`] of a connection.
    settling: BTreeMap<u16, Begun>,
    begun: u64,
}

impl All {
    fn page(&self, number: u8) -> Option<&Page> {
        let place = self.pages.binary_search_by_key(&number, Page::number).ok()?;
        self.pages.get(place)
    }

    /// Changes a page, which is made if need be, with the word whether there is room for one digest more.
    fn change(&mut self, number: u8, change: impl FnOnce(&mut Page, bool)) {
        let place = self.pages.binary_search_by_key(&number, Page::number).unwrap_or_else(|place| {
            self.pages.insert(place, Page::new(number));
            place
        });
        let Some(page) = self.pages.get_mut(place) else { return };
        self.digests -= page.digests();
        let has_room = self.digests + page.digests() < plan::QOS2_DIGESTS;
        change(page, has_room);
        self.digests += page.digests();
        if page.is_empty() {
            self.pages.remove(place);
            self.pages.shrink_to(2 * self.pages.len().max(2));
        }
    }
}

/// The number of its page, and its place there.
fn split(pkid: u16) -> (u8, u8) {
    let [number, place] = pkid.to_be_bytes();
    (number, place)
}

/// The number of the page, which is a row of the store, that has an identifier.
pub(crate) fn page_of(pkid: u16) -> u8 {
    split(pkid).0
}

/// It is kept on disk, so it is one that stays the same. That two messages of a client have the same one by chance happens once in
/// four thousand million; whoever makes them so deceives only himself.
fn digest(publish: &Publish) -> u32 {
    let mut context = Context::new(&SHA256);
    context.update(&publish.topic.len().to_be_bytes());
    context.update(publish.topic.as_bytes());
    context.update(&publish.payload);
    let whole = context.finish();
    whole.as_ref().first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

impl Unreleased {
    fn progress(&self, pkid: u16) -> Option<Progress> {
        let all = self.all.borrow();
        let (number, place) = split(pkid);
        let page = all.page(number).filter(|page| page.has(place))?;
        Some(if all.settling.contains_key(&pkid) {
            Progress::Settling
        } else if page.is_taken(place) {
            Progress::Taken
        } else {
            Progress::HandedOut
        })
    }

    /// Whether a publish comes under an identifier that was not released, and is another one.
    pub(crate) fn is_reused(&self, publish: &Publish) -> bool {
        let (number, place) = split(publish.pkid);
        let known = self.all.borrow().page(number).and_then(|page| page.digest(place));
        known.is_some_and(|known| known != digest(publish))
    }

    /// How far that has come which a publish repeats; `None`: it is a new message. Without a digest the identifier alone says so.
    pub(crate) fn repeated(&self, publish: &Publish) -> Option<Progress> {
        self.progress(publish.pkid).filter(|_| !self.is_reused(publish))
    }

    /// Subscribers get it now.
    pub(crate) fn begin(&self, publish: &Publish) -> Begun {
        let mut all = self.all.borrow_mut();
        all.begun += 1;
        let begun = Begun(all.begun);
        let (number, place) = split(publish.pkid);
        let digest = digest(publish);
        all.change(number, |page, has_room| page.put(place, Some(digest), has_room));
        all.settling.insert(publish.pkid, begun);
        begun
    }

    /// What it was waited for has been said, unless the identifier stands for another one by now, or was released.
    pub(crate) fn settle(&self, pkid: u16, begun: Begun, is_taken: bool) {
        let mut all = self.all.borrow_mut();
        if all.settling.get(&pkid) == Some(&begun) {
            all.settling.remove(&pkid);
            let (number, place) = split(pkid);
            all.change(number, |page, _| page.take(place, is_taken));
        }
        drop(all);
        self.settled.notify_waiters();
    }

    /// PUBREL, or a refusal: the identifier is free. Says whether it was taken.
    pub(crate) fn release(&self, pkid: u16) -> bool {
        let mut all = self.all.borrow_mut();
        let (number, place) = split(pkid);
        if all.page(number).is_none_or(|page| !page.has(place)) {
            return false;
        }
        all.settling.remove(&pkid);
        all.change(number, |page, _| page.release(place));
        drop(all);
        self.settled.notify_waiters();
        true
    }

    /// The same for one that was refused, unless the identifier stands for another one by now.
    pub(crate) fn refuse(&self, pkid: u16, begun: Begun) {
        let is_current = self.all.borrow().settling.get(&pkid) == Some(&begun);
        if is_current {
            self.release(pkid);
        }
    }

    /// Waits until one that an earlier connection brought has settled. Answers whether it may be acknowledged: it was taken, or its
    /// identifier is free by now.
    pub(crate) async fn settled(&self, pkid: u16) -> bool {
        loop {
            let settled = self.settled.notified();
            match self.progress(pkid) {
                Some(Progress::Settling) => settled.await,
                other => return other != Some(Progress::HandedOut),
            }
        }
    }

    /// The numbers of its pages, see [`page_of`].
    pub(crate) fn pages(&self) -> Vec<u8> {
        self.all.borrow().pages.iter().map(Page::number).collect()
    }

    /// What the store has of a page; `None`: nothing.
    pub(crate) fn row(&self, number: u8) -> Option<Vec<u8>> {
        self.all.borrow().page(number).map(Page::to_bytes)
    }

    /// Takes up what the store had of a page; `None`: that is none. Whether DeviceTwin and the outbox took them is not known.
    pub(crate) fn restore(&self, number: u8, row: &[u8]) -> Option<()> {
        let mut all = self.all.borrow_mut();
        for (place, digest) in page::from_bytes(row)? {
            all.change(number, |page, has_room| page.put(place, digest, has_room));
        }
        Some(())
    }

    /// The same for an identifier that the store had by itself.
    pub(crate) fn restore_one(&self, pkid: u16) {
        let (number, place) = split(pkid);
        self.all.borrow_mut().change(number, |page, has_room| page.put(place, None, has_room));
    }
}

#[cfg(test)]
mod tests;
