//! What a daemon is given from outside: spawning, clock and randomness.
//!
//! The only place that reads the machine's clock and entropy; a simulation hands in its own.

use std::any::Any;
use std::future::Future;
use std::num::NonZero;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::blocking::BlockingWork;
use crate::trace::{TraceSettings, Traces};
use crate::{Fault, Metrics};

/// A point of the monotonic clock, as time since the environment was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// Time from `earlier` to this point; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, rhs: Duration) -> Moment {
        Moment(self.0 + rhs)
    }
}

/// A clock: monotonic time, wall time and sleeping.
pub trait Clock: Send + Sync {
    /// Monotonic time since the clock was made.
    fn now(&self) -> Moment;
    /// Wall time. May be years off on a box without a battery: never decide a conflict by it.
    fn wall(&self) -> SystemTime;
    /// What the machine's own clock says, right or wrong: for whoever judges that clock.
    fn machine(&self) -> SystemTime {
        self.wall()
    }
    /// Completes after `pause`.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;
    /// What it is now at the earliest, whatever the wall clock says: where it is judged what is still valid, time is the
    /// later of both. 1970 for a clock that keeps nothing of the kind.
    fn earliest(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    /// Something that was verified proves that it is `at` or later. What this clock's own wall time says is no proof.
    fn learn(&self, at: SystemTime) {
        let _ = at;
    }
    /// Whether its time passes by the runtime's own reckoning, and not while a thread waits for it.
    fn is_virtual(&self) -> bool {
        false
    }
}

/// tokio's clock: real time in a daemon, virtual time under a paused runtime.
pub struct TokioClock {
    start: tokio::time::Instant,
    wall_at_start: SystemTime,
    follows_pause: bool,
}

impl TokioClock {
    /// Real time. Wall time is read from the machine at each call, so that a corrected clock is seen.
    pub fn real() -> Self {
        TokioClock {
            start: tokio::time::Instant::now(),
            wall_at_start: SystemTime::now(),
            follows_pause: false,
        }
    }

    /// Wall time starts at `wall` and moves with tokio's clock, for paused runtimes.
    pub fn paused_from(wall: SystemTime) -> Self {
        TokioClock { start: tokio::time::Instant::now(), wall_at_start: wall, follows_pause: true }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }
    fn wall(&self) -> SystemTime {
        if self.follows_pause { self.wall_at_start + self.start.elapsed() } else { SystemTime::now() }
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(pause).boxed()
    }
    fn is_virtual(&self) -> bool {
        self.follows_pause
    }
}

type Spawner = Rc<dyn Fn(LocalBoxFuture<'static, ()>)>;

/// Where work goes that blocks its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocking {
    /// tokio's threads for such work.
    ThreadPool,
    /// The hive's own thread: nothing else goes on meanwhile, so that two runs are alike.
    Inline,
}

/// 2, as many small nodes have.
const PROCESSORS_OF_A_SIMULATION: usize = 2;
/// 64: some ten microseconds of small messages.
const MESSAGES_PER_POLL: usize = 64;

/// What every actor of a hive shares. Cheap to clone; stays on the hive's thread.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<Mutex<StdRng>>,
    spawner: Spawner,
    blocking: Blocking,
    blocking_work: BlockingWork,
    metrics: Metrics,
    traces: Traces,
}

type Outcome = Box<dyn Any + Send>;

/// Runs work that blocks its thread on one of tokio's threads for that: [`Env::blocking`], for parts on other threads.
///
/// # Errors
/// When the work panicked.
pub async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    // Of one type for all, since the library's task is compiled for each type of work.
    let done = run_boxed(Box::new(move || Box::new(work()))).await?;
    let done = done.downcast().map_err(|_| Fault::new("work has come to something else"))?;
    Ok(*done)
}

async fn run_boxed(work: Box<dyn FnOnce() -> Outcome + Send>) -> Result<Outcome, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Fault::from_error(&error))
}

impl Env {
    /// An environment from its parts. `seed` drives all jitter and all generated ids.
    pub fn new(
        clock: Arc<dyn Clock>,
        seed: u64,
        spawner: impl Fn(LocalBoxFuture<'static, ()>) + 'static,
    ) -> Self {
        Env {
            clock,
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            spawner: Rc::new(spawner),
            blocking: Blocking::ThreadPool,
            blocking_work: BlockingWork::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
        }
    }

    /// The same environment without threads beside the hive's: for a simulation, whose runs have to be alike.
    #[must_use]
    pub fn without_threads(mut self) -> Self {
        self.blocking = Blocking::Inline;
        self
    }

    /// The same environment, in which `spawner` starts the tasks.
    #[must_use]
    pub fn spawned_by(mut self, spawner: impl Fn(LocalBoxFuture<'static, ()>) + 'static) -> Self {
        self.spawner = Rc::new(spawner);
        self
    }

    /// The same environment by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same environment, in which what is drawn by these settings is followed: see [`crate::trace`]. Of its clones those from now on.
    #[must_use]
    pub fn tracing(mut self, settings: TraceSettings) -> Self {
        self.traces = Traces::new(settings, self.clock(), self.id_source(), self.metrics.clone());
        self
    }

    /// What is followed; off unless [`Env::tracing`].
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// How many messages an actor handles before it lets others have the thread. In a simulation one, so that a daemon
    /// can be killed between any two.
    pub(crate) fn messages_per_poll(&self) -> usize {
        match self.blocking {
            Blocking::Inline => 1,
            Blocking::ThreadPool => MESSAGES_PER_POLL,
        }
    }

    /// How many processors this process may use, at least 1. In a simulation always as many: its runs are to be alike on all
    /// machines.
    pub fn processors(&self) -> usize {
        match self.blocking {
            Blocking::Inline => PROCESSORS_OF_A_SIMULATION,
            Blocking::ThreadPool => std::thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Whether nothing may be left to a thread beside the hive's.
    pub(crate) fn is_virtual(&self) -> bool {
        self.blocking == Blocking::Inline || self.clock.is_virtual()
    }

    /// Runs work that blocks its thread (files, the machine) beside the hive's thread. It goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// When the work panicked.
    #[track_caller]
    pub fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Fault>> {
        let place = Location::caller();
        async move {
            match self.blocking {
                Blocking::Inline => Ok(work()),
                Blocking::ThreadPool => {
                    let begun = self.blocking_work.begin(place);
                    let run = move || {
                        let done = work();
                        drop(begun);
                        done
                    };
                    on_a_thread(run).await
                }
            }
        }
    }

    /// What of [`Env::blocking`] is under way.
    pub fn blocking_work(&self) -> BlockingWork {
        self.blocking_work.clone()
    }

    /// The environment of a daemon: real clock, seed from the machine, tasks on the current thread.
    pub fn real() -> Self {
        let mut env = Env::new(Arc::new(TokioClock::real()), 0, |task| {
            actix_rt::spawn(task);
        });
        // Keys are made from it, so it starts from all the entropy that the generator takes.
        env.random = Arc::new(Mutex::new(StdRng::from_os_rng()));
        env
    }

    /// The environment of a test: tokio's clock (which may be paused) and a fixed seed.
    pub fn seeded(seed: u64) -> Self {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Env::new(Arc::new(TokioClock::paused_from(epoch)), seed, |task| {
            tokio::task::spawn_local(task);
        })
    }

    /// Counts a named event: the counter `event` goes up by one.
    pub fn count(&self, event: &'static str) {
        self.metrics.add(event, 1);
    }

    /// Sets the gauge `name` to `value`, in the unit that its name says.
    pub fn measure(&self, name: &'static str, value: f64) {
        self.metrics.set(name, value);
    }

    /// The counters and gauges themselves, for parts that run on another thread and for tests.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Monotonic now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The clock itself, for parts that run on another thread.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Wall time; see [`Clock::wall`].
    pub fn wall(&self) -> SystemTime {
        self.clock.wall()
    }

    /// Completes after `pause`.
    pub fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(pause)
    }

    /// `Some` with the result, or `None` when `limit` passed first.
    pub async fn timeout<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let work = std::pin::pin!(work);
        match futures::future::select(work, self.sleep(limit)).await {
            futures::future::Either::Left((done, _)) => Some(done),
            futures::future::Either::Right(((), _)) => None,
        }
    }

    /// Runs `task` on the hive's thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        (self.spawner)(task.boxed_local());
    }

    /// A number below `bound` (0 when `bound` is 0).
    pub fn random_below(&self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..bound)
    }

    /// 16 random bytes, for ids.
    pub fn random_id(&self) -> [u8; 16] {
        self.id_source()()
    }

    /// A source of [`Env::random_id`] for parts that run on another thread.
    pub fn id_source(&self) -> Box<dyn Fn() -> [u8; 16] + Send + Sync> {
        let random = Arc::clone(&self.random);
        Box::new(move || {
            let mut id = [0; 16];
            random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
            id
        })
    }

    /// A pause between half of `base` and `base`.
    pub fn jitter(&self, base: Duration) -> Duration {
        let half = base / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.random_below(span.saturating_add(1)))
    }
}
