//! The clock of a machine that may have no battery, and the last known time, which is kept in the node's store.
//!
//! Where it is judged what is still valid, time is never earlier than the latest moment that is proven to have passed: when this program was
//! made, when a certificate that was verified began or this node's own did, and the time that passed since by the monotonic
//! clock, while this program ran.
//!
//! What the machine's clock says is no proof, and is never kept: one that was ahead for an hour (a false answer of NTP) would else shut the node
//! out when it is right again, for as long as certificates live and longer. Nor is a moment that is known dropped because a dial
//! contradicts it: who sets the clock back makes a contradiction, and would bring a stolen certificate of CloudCore back
//! that has ended. What is known may so be late by the time that the machine was off, until a link shows a certificate
//! that began since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Env, Fault, Moment, TokioClock};
use edge_store::{Store, StoreError, Table, Write};
use futures::future::BoxFuture;

/// The keys of the row. Programs before kept what the clock said, in `last-known`: it proves nothing.
const KEY: (&str, &str) = ("clock", "last-proven");
/// 10 min: the row is written again when that much more has passed. Whoever writes asks once an hour and at the end, because
/// flash wears out.
const WORTH_WRITING: Duration = Duration::from_secs(600);

/// The machine's clock, and what is known to have passed.
pub struct KnownClock {
    inner: Arc<dyn Clock>,
    /// When this program was made.
    made: SystemTime,
    /// The latest moment that is proven to have passed, and when it was learned.
    known: Mutex<(SystemTime, Moment)>,
}

impl KnownClock {
    /// The machine's own clock.
    pub fn real() -> Arc<Self> {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX);
        Arc::new(KnownClock::over(Arc::new(TokioClock::real()), made))
    }

    fn over(inner: Arc<dyn Clock>, made: SystemTime) -> Self {
        let known = Mutex::new((made, inner.now()));
        KnownClock { inner, made, known }
    }
}

impl Clock for KnownClock {
    fn now(&self) -> Moment {
        self.inner.now()
    }

    /// The machine's clock, unless it says a time before this program was made: then what is known to have passed, which is
    /// nearer.
    fn wall(&self) -> SystemTime {
        let machine = self.inner.wall();
        if machine < self.made { self.earliest() } else { machine }
    }

    fn machine(&self) -> SystemTime {
        self.inner.machine()
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(pause)
    }

    fn is_virtual(&self) -> bool {
        self.inner.is_virtual()
    }

    fn earliest(&self) -> SystemTime {
        let (known, learned) = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.checked_add(self.inner.now().since(learned)).unwrap_or(known)
    }

    fn learn(&self, at: SystemTime) {
        let now = self.inner.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = known.0.checked_add(now.since(known.1)).unwrap_or(known.0);
        if at > earliest {
            *known = (at, now);
        }
    }
}

/// Teaches the clock what was known when the store was written last. A row that makes no sense teaches nothing.
///
/// # Errors
/// When the store cannot be read. Blocks.
pub fn recall(store: &Store, clock: &dyn Clock) -> Result<(), StoreError> {
    if let Some(kept) = kept(store)? {
        clock.learn(kept);
    }
    Ok(())
}

/// Keeps what the clock knows, when it has become worth it.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn keep(store: &Store, env: &Env) -> Result<(), Fault> {
    let earliest = env.clock().earliest();
    let reader = store.clone();
    let before = env.blocking(move || kept(&reader)).await?.map_err(|error| Fault::from_error(&error))?;
    let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
    // Nothing is known, or nothing new.
    if earliest < before.checked_add(WORTH_WRITING).unwrap_or(before) {
        return Ok(());
    }
    let seconds = earliest.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let row = Write::PutRow {
        table: Table::Facts,
        key1: KEY.0.to_owned(),
        key2: KEY.1.to_owned(),
        value: seconds.to_string().into_bytes(),
    };
    store.commit(vec![row]).await.map(drop).map_err(|error| Fault::from_error(&error))
}

fn kept(store: &Store) -> Result<Option<SystemTime>, StoreError> {
    let row = store.get_row(Table::Facts, KEY.0, KEY.1)?;
    let seconds = row.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
    Ok(seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    /// A clock that a test sets.
    struct Set {
        wall: Mutex<SystemTime>,
        now: Mutex<Moment>,
    }

    impl Clock for Set {
        fn now(&self) -> Moment {
            *self.now.lock().unwrap()
        }
        fn wall(&self) -> SystemTime {
            *self.wall.lock().unwrap()
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn day(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    fn machine(wall: SystemTime) -> Arc<Set> {
        Arc::new(Set { wall: Mutex::new(wall), now: Mutex::new(Moment::default()) })
    }

    fn over(machine: &Arc<Set>) -> KnownClock {
        KnownClock::over(Arc::clone(machine) as Arc<dyn Clock>, day(20_000))
    }

    #[test]
    fn time_is_the_latest_of_the_clock_what_is_known_and_the_programs_making() {
        let machine = machine(day(0));
        let clock = over(&machine);
        assert_eq!((clock.wall(), clock.earliest()), (day(20_000), day(20_000)));
        assert_eq!(clock.machine(), day(0), "who judges the machine's clock is told what it says");
        clock.learn(day(20_100));
        clock.learn(day(20_050));
        assert_eq!((clock.wall(), clock.earliest()), (day(20_100), day(20_100)));
        *machine.now.lock().unwrap() = Moment(Duration::from_secs(86_400));
        assert_eq!((clock.wall(), clock.earliest()), (day(20_101), day(20_101)), "it goes on");
        // Set right; set ahead; set back by an hour: what people read follows, what is judged by is never earlier.
        *machine.wall.lock().unwrap() = day(20_200);
        assert_eq!((clock.wall(), clock.earliest()), (day(20_200), day(20_101)));
        clock.learn(day(20_200));
        let back = day(20_200) - Duration::from_secs(3600);
        *machine.wall.lock().unwrap() = back;
        assert_eq!((clock.wall(), clock.earliest()), (back, day(20_200)));
        *machine.wall.lock().unwrap() = day(90_000);
        assert_eq!((clock.wall(), clock.earliest()), (day(90_000), day(20_200)), "ahead it teaches nothing");
    }

    #[tokio::test]
    async fn a_boot_in_1970_recalls_the_last_known_time_which_is_written_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let first = machine(day(20_300));
        let clock = over(&first);
        clock.learn(day(20_300));
        let env = Env::seeded(1).with_clock(Arc::new(clock));
        let begin = store.revision();
        for second in 0..3600 {
            *first.now.lock().unwrap() = Moment(Duration::from_secs(second));
            keep(&store, &env).await.unwrap();
        }
        assert_eq!(store.revision() - begin, 6, "six times in an hour though it was asked each second");

        let booted = over(&machine(day(0)));
        recall(&store, &booted).unwrap();
        assert!(booted.earliest() >= day(20_300) && booted.wall() >= day(20_300));
        // One that knows nothing of the kind writes nothing.
        let begin = store.revision();
        keep(&store, &Env::seeded(1)).await.unwrap();
        assert_eq!(store.revision(), begin);
    }

    #[tokio::test]
    async fn what_a_program_before_kept_by_the_clock_alone_teaches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let (key1, key2) = ("clock".to_owned(), "last-known".to_owned());
        let value = (20_025 * 86_400).to_string().into_bytes();
        store.commit(vec![Write::PutRow { table: Table::Facts, key1, key2, value }]).await.unwrap();
        let clock = over(&machine(day(20_001)));
        recall(&store, &clock).unwrap();
        assert_eq!(clock.earliest(), day(20_000), "a false clock shut this node out");
    }

    #[tokio::test]
    async fn a_row_that_makes_no_sense_teaches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        for odd in ["", "x", "-1", "99999999999999999999999", "18446744073709551615"] {
            let (key1, key2) = (KEY.0.to_owned(), KEY.1.to_owned());
            let value = odd.as_bytes().to_vec();
            store.commit(vec![Write::PutRow { table: Table::Facts, key1, key2, value }]).await.unwrap();
            let clock = over(&machine(day(0)));
            recall(&store, &clock).unwrap();
            assert_eq!(clock.earliest(), day(20_000), "{odd}");
        }
    }
}
