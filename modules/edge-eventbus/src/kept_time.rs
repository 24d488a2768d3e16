//! The time by which messages expire. It goes on while edgecore is down, and while the machine is off as far as that can be known.
//!
//! Nobody's setting of a clock ends a message: within one boot of the machine the time since its boot counts, whatever the wall clock
//! says, and from one boot to the next what the wall clock says has passed, at least the time since this boot. What the wall clock says
//! is believed where it can be: at both ends it says a time that is later than what is known to have passed (a machine without a battery
//! begins in the past), it has not gone back, and no more than a year is between. Otherwise nobody knows how long the machine was off,
//! and what has not expired for sure is kept.
//!
//! The row that says where this time stood is written at the start, and again when the wall clock has been set: what it said before is
//! of no use to the next boot.

use std::path::Path;
use std::time::Duration;

use beehive::{Env, Fault, Moment};
use edge_store::{Store, StoreError, Table, Write};
use serde::{Deserialize, Serialize};

use crate::message::Clocks;

/// The keys of the row.
const KEY: (&str, &str) = ("eventbus", "time");
/// Where the kernel says how long the machine has been up.
const UPTIME: &str = "/proc/uptime";
/// A year: what is more was a clock that was set, or so long that nobody can tell the two apart.
const AWAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// 10 s between two looks whether the wall clock was set.
const LOOK: Duration = Duration::from_secs(10);
/// 2 s: a wall clock that has moved less against the other one was not set, but runs a little faster or slower.
const SET_BY: Duration = Duration::from_secs(2);

/// What the machine's clocks say.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineClocks {
    /// The kernel's boot id; empty: it is not known.
    boot: String,
    /// Since that boot.
    up: Duration,
}

impl MachineClocks {
    /// Blocks. `boot_id_file`: where the boot id stands.
    pub(crate) fn read(boot_id_file: &Path) -> Self {
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let up = text(Path::new(UPTIME));
        let up = up.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
        let up = up.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
        MachineClocks { boot: text(boot_id_file).trim().to_owned(), up }
    }
}

/// Where the kept time stood at some moment. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TimeMark {
    boot: String,
    up: u64,
    /// Since 1970; none: nobody can believe it.
    wall: Option<u64>,
    /// The kept time.
    time: u64,
}

/// The kept time of this run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeptTime {
    at: Moment,
    /// What it was then: since 1970, where the wall clock of the broker's very first start was right.
    time: Duration,
}

impl KeptTime {
    /// The clocks of now.
    pub(crate) fn clocks(self, now: Moment) -> Clocks {
        Clocks { now, kept: self.time + now.since(self.at) }
    }
}

/// The time where an earlier run left it, or a new one.
fn resumed(mark: Option<&TimeMark>, machine: &MachineClocks, wall: Duration, is_believed: bool) -> Duration {
    let Some(mark) = mark else { return wall };
    let is_known = !machine.boot.is_empty() && !mark.boot.is_empty();
    let time = Duration::from_millis(mark.time);
    if is_known && mark.boot == machine.boot {
        return time + machine.up.saturating_sub(Duration::from_millis(mark.up));
    }
    let by_wall =
        mark.wall.filter(|_| is_believed).and_then(|then| wall.checked_sub(Duration::from_millis(then)));
    let by_wall = by_wall.filter(|passed| *passed <= AWAY_MAX).unwrap_or_default();
    time + if is_known { by_wall.max(machine.up) } else { by_wall }
}

/// Since 1970, and whether it can be believed.
fn wall(env: &Env) -> (Duration, bool) {
    let (wall, earliest) = (env.wall(), env.clock().earliest());
    (wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default(), wall > earliest)
}

/// Goes on with the time of an earlier run. What it comes from is to be handed to [`keep`].
pub(crate) fn begin(row: Option<&[u8]>, machine: &MachineClocks, env: &Env) -> KeptTime {
    // One that makes no sense is none.
    let mark = row.and_then(|row| serde_json::from_slice(row).ok());
    let (wall, is_believed) = wall(env);
    KeptTime { at: env.now(), time: resumed(mark.as_ref(), machine, wall, is_believed) }
}

/// The row. Blocks.
pub(crate) fn row(store: &Store) -> Result<Option<Vec<u8>>, StoreError> {
    store.get_row(Table::Facts, KEY.0, KEY.1)
}

/// Keeps where the time stands, now and whenever the wall clock was set. A store that takes nothing is asked again.
pub(crate) async fn keep(time: KeptTime, machine: MachineClocks, store: Store, env: Env) {
    let began = env.now();
    let mut written: Option<i128> = None;
    loop {
        let (now, (wall, is_believed)) = (env.now(), wall(&env));
        // How far the one clock is ahead of the other: as long as nobody sets one, always the same.
        let ahead = wall.as_millis().cast_signed() - now.0.as_millis().cast_signed();
        if written.is_none_or(|before| before.abs_diff(ahead) >= SET_BY.as_millis()) {
            let mark = TimeMark {
                boot: machine.boot.clone(),
                up: millis(machine.up + now.since(began)),
                wall: is_believed.then(|| millis(wall)),
                time: millis(time.clocks(now).kept),
            };
            match write(&mark, &store).await {
                Ok(()) => written = Some(ahead),
                Err(fault) => {
                    tracing::debug!(reason = %fault.reason, "where the time of MQTT messages stands is not kept yet")
                }
            }
        }
        env.sleep(LOOK).await;
    }
}

async fn write(mark: &TimeMark, store: &Store) -> Result<(), Fault> {
    let value = serde_json::to_vec(mark).map_err(|error| Fault::from_error(&error))?;
    let (key1, key2) = (KEY.0.to_owned(), KEY.1.to_owned());
    let row = Write::PutRow { table: Table::Facts, key1, key2, value };
    store.commit(vec![row]).await.map(drop).map_err(|error| Fault::from_error(&error))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    /// What the wall clock said when the mark was made: some day in 2026.
    const THEN: u64 = 20_500 * DAY;

    fn mark() -> TimeMark {
        TimeMark { boot: "a".into(), up: 100_000, wall: Some(THEN * 1000), time: 7_000_000 }
    }

    /// How many seconds have passed since the mark, by machine and wall clock of now.
    fn passed(mark: &TimeMark, boot: &str, up: u64, wall: u64, is_believed: bool) -> u64 {
        let machine = MachineClocks { boot: boot.into(), up: Duration::from_secs(up) };
        resumed(Some(mark), &machine, Duration::from_secs(wall), is_believed).as_secs() - 7000
    }

    #[test]
    fn within_a_boot_no_wall_clock_counts() {
        for wall in [0, THEN - DAY, THEN + 60, THEN + 300 * DAY] {
            assert_eq!(passed(&mark(), "a", 160, wall, true), 60);
        }
    }

    #[test]
    fn from_one_boot_to_the_next_the_wall_clock_counts_as_far_as_it_can_be_believed() {
        assert_eq!(passed(&mark(), "b", 20, THEN + DAY, true), DAY);
        // One that has gone back, jumps by decades, or says what cannot be, says nothing; the machine is up for a while for sure.
        assert_eq!(passed(&mark(), "b", 20, THEN - DAY, true), 20);
        assert_eq!(passed(&mark(), "b", 20, THEN + 5, true), 20);
        assert_eq!(passed(&mark(), "b", 20, THEN + 9_000 * DAY, true), 20);
        assert_eq!(passed(&mark(), "b", 20, THEN + DAY, false), 20);
        let in_the_past = TimeMark { wall: None, ..mark() };
        assert_eq!(passed(&in_the_past, "b", 20, THEN + DAY, true), 20);
        // Without a boot id it may be the same boot.
        assert_eq!(passed(&mark(), "", 900, THEN + 60, true), 60);
        let machine = MachineClocks::default();
        assert_eq!(
            resumed(None, &machine, Duration::from_secs(THEN), true).as_secs(),
            THEN,
            "as rows of before have it"
        );
    }

    #[test]
    fn the_machine_says_its_boot_and_how_long_it_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("boot_id");
        std::fs::write(&file, "one boot\n").unwrap();
        let machine = MachineClocks::read(&file);
        assert!(machine.boot == "one boot" && machine.up > Duration::ZERO);
        assert_eq!(MachineClocks::read(&folder.path().join("none")).boot, "");
    }
}
