//! Addresses of hosts by their names.
//!
//! The C library looks a name up for as long as name servers are silent: tens of seconds, whatever its caller's patience is, and
//! nothing stops it. So a lookup has a thread of its own until it has really ended, never one of those that files wait for, and
//! there are few at once: a name that nobody answers for holds up who asks for it, and nobody else.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::Thread;

/// 2: a name that is not answered leaves whoever named it room for another.
const OF_ONE_OWNER: usize = 2;
/// 64 wait for one lookup; it is the same name to all of them.
const WAITERS_MAX: usize = 64;

pub(crate) type Looked = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

/// What looks names up. Cheap to clone; clones share their bounds.
#[derive(Clone)]
pub struct Lookups {
    going_on: Arc<Mutex<HashMap<String, Lookup>>>,
    /// At once.
    most: usize,
    resolve: fn(&str) -> Looked,
}

struct Lookup {
    owner: String,
    waiters: Vec<oneshot::Sender<Looked>>,
}

impl Lookups {
    /// By the C library: as `/etc/nsswitch.conf`, `/etc/hosts` and `/etc/resolv.conf` say. At most so many names at once.
    pub fn at_most(most: usize) -> Self {
        Lookups { going_on: Arc::default(), most, resolve: by_the_system }
    }

    /// By whatever a test says.
    #[cfg(test)]
    pub(crate) fn answering(resolve: fn(&str) -> Looked) -> Self {
        Lookups { going_on: Arc::default(), most: 1, resolve }
    }

    /// The addresses of `host`, each with `port`; an address is its own. Two names of one `owner` are looked up at once, and one
    /// that is already being looked up is not asked for again. Whoever stops waiting for the answer does not end the lookup.
    ///
    /// # Errors
    /// That the name has no address, with the system's words; `WouldBlock` when too many names are being looked up.
    pub async fn of(&self, owner: &str, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let looked = match self.wait_for(owner, host)?.await {
            Ok(looked) => looked.map_err(|(kind, what)| io::Error::new(kind, what))?,
            Err(_) => return Err(io::Error::other(format!("lookup {host}: it ended without an answer"))),
        };
        Ok(looked.into_iter().map(|address| (address, port).into()).collect())
    }

    fn wait_for(&self, owner: &str, host: &str) -> io::Result<oneshot::Receiver<Looked>> {
        let too_many = |what: &str| {
            io::Error::new(io::ErrorKind::WouldBlock, format!("lookup {host}: too many {what} at once"))
        };
        let (waiter, answer) = oneshot::channel();
        let mut going_on = self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = going_on.get_mut(host) {
            lookup.waiters.retain(|waiter| !waiter.is_closed());
            if lookup.waiters.len() >= WAITERS_MAX {
                return Err(too_many("wait for it"));
            }
            lookup.waiters.push(waiter);
            return Ok(answer);
        }
        let of_owner = going_on.values().filter(|lookup| lookup.owner == owner).count();
        if of_owner >= OF_ONE_OWNER || going_on.len() >= self.most {
            return Err(too_many("names are looked up"));
        }
        let ends = Ends { going_on: Arc::clone(&self.going_on), host: host.to_owned(), looked: None };
        let resolve = self.resolve;
        let lookup = Lookup { owner: owner.to_owned(), waiters: vec![waiter] };
        going_on.insert(host.to_owned(), lookup);
        drop(going_on);
        // Nobody waits for the thread: it ends with the lookup.
        Thread::start("lookup", move || {
            let mut ends = ends;
            ends.looked = Some(resolve(&ends.host));
        })?;
        Ok(answer)
    }
}

impl std::fmt::Debug for Lookups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookups").field("most", &self.most).finish_non_exhaustive()
    }
}

/// However a lookup ends, its place is free, and whoever waits hears of it.
struct Ends {
    going_on: Arc<Mutex<HashMap<String, Lookup>>>,
    host: String,
    looked: Option<Looked>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let ended = self.going_on.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
        let Some(looked) = self.looked.take() else { return };
        for waiter in ended.into_iter().flat_map(|lookup| lookup.waiters) {
            // Who has gone needs no answer.
            let _ = waiter.send(looked.clone());
        }
    }
}

fn by_the_system(host: &str) -> Looked {
    match (host, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures::FutureExt;
    use tokio::sync::MutexGuard;

    use super::*;

    /// Answers of a resolver that says nothing until it is told to.
    static ANSWERS: LazyLock<(Sender<Looked>, Mutex<Receiver<Looked>>)> = LazyLock::new(|| {
        let (sender, receiver) = channel();
        (sender, Mutex::new(receiver))
    });
    /// The tests share it.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    async fn silent() -> (Lookups, MutexGuard<'static, ()>) {
        let alone = ONE_AT_A_TIME.lock().await;
        let resolve = |_: &str| {
            let answer = ANSWERS.1.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap();
            if answer.as_ref().is_ok_and(Vec::is_empty) {
                panic!("as asked")
            }
            answer
        };
        (Lookups { resolve, ..Lookups::at_most(3) }, alone)
    }

    fn answer(looked: Looked) {
        ANSWERS.0.send(looked).unwrap();
    }

    #[tokio::test]
    async fn an_address_is_looked_up_by_nobody_and_a_name_by_the_system() {
        let lookups = Lookups::at_most(0);
        for (host, address) in [("10.1.2.3", "10.1.2.3:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")] {
            assert_eq!(lookups.of("a", host, 80).await.unwrap(), [address.parse().unwrap()]);
        }
        let found = Lookups::at_most(1).of("a", "localhost", 80).await.unwrap();
        assert!(
            found.iter().all(|address| address.ip().is_loopback() && address.port() == 80)
                && !found.is_empty()
        );
        let error = Lookups::at_most(1).of("a", "no such name", 80).await.unwrap_err();
        assert!(!error.to_string().is_empty());
    }

    #[tokio::test]
    async fn names_that_nobody_answers_for_hold_up_who_asked_and_leave_room_for_others() {
        let (lookups, _alone) = silent().await;
        let mut waiting: Vec<_> =
            ["a1", "a2", "a1"].into_iter().map(|host| Box::pin(lookups.of("a", host, 80))).collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        let refused = lookups.of("a", "a3", 80).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "{refused}");
        // Another's goes on, and then there are as many as there may be.
        let mut other = Box::pin(lookups.of("b", "b1", 80));
        assert!((&mut other).now_or_never().is_none());
        assert!(lookups.of("c", "c1", 80).await.is_err());
        // Who does not wait any more still has its lookups.
        drop(waiting);
        assert!(lookups.of("a", "a3", 80).await.is_err());
        for _ in 0..3 {
            answer(Ok(vec![[10, 0, 0, 1].into()]));
        }
        assert_eq!(other.await.unwrap(), ["10.0.0.1:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_lookup_that_fails_or_panics_frees_its_place_and_tells_all_who_wait() {
        let (lookups, _alone) = silent().await;
        let mut both = Box::pin(futures::future::join(lookups.of("a", "x", 80), lookups.of("b", "x", 81)));
        // Both wait before there is an answer.
        assert!((&mut both).now_or_never().is_none());
        answer(Err((io::ErrorKind::NotFound, "nobody knows it".to_owned())));
        let (first, second) = both.await;
        assert_eq!(first.unwrap_err().to_string(), "nobody knows it");
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::NotFound);
        answer(Ok(Vec::new()));
        assert!(lookups.of("a", "x", 80).await.is_err(), "it panicked");
        answer(Ok(vec![[10, 0, 0, 1].into()]));
        assert_eq!(lookups.of("a", "x", 80).await.unwrap().len(), 1);
    }
}
