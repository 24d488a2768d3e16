//! What is looked at on the machine before a part begins: at most 80 percent of a thing may be used (KubeEdge).

use std::path::Path;
use std::time::Duration;

use beehive::Env;

use crate::task::CheckItem;

/// KubeEdge's: above so many percent the node is not fit.
const PERCENT_MAX: u64 = 80;
/// 1 s over which it is counted how busy the processors are.
const CPU_OVER: Duration = Duration::from_secs(1);

/// Looks at them.
///
/// # Errors
/// What is too full, and how full; or what cannot be looked at.
pub(crate) async fn look(env: &Env, items: &[CheckItem]) -> Result<(), String> {
    for item in items {
        let percent = match item {
            CheckItem::Cpu => {
                let first = read(env, "/proc/stat").await?;
                env.sleep(CPU_OVER).await;
                busy(&first, &read(env, "/proc/stat").await?)
            }
            CheckItem::Mem => memory(&read(env, "/proc/meminfo").await?),
            CheckItem::Disk => disk(env).await?,
        };
        let name = match item {
            CheckItem::Cpu => "cpu",
            CheckItem::Mem => "mem",
            CheckItem::Disk => "disk",
        };
        match percent {
            Some(percent) if percent <= PERCENT_MAX => {}
            Some(percent) => {
                return Err(format!("{name}: {percent} percent are used, and {PERCENT_MAX} may be"));
            }
            None => return Err(format!("{name}: the machine does not say how much is used")),
        }
    }
    Ok(())
}

async fn read(env: &Env, file: &'static str) -> Result<String, String> {
    let read = env.blocking(move || std::fs::read_to_string(file)).await;
    read.map_err(|fault| fault.reason)?.map_err(|error| format!("{file}: {error}"))
}

async fn disk(env: &Env) -> Result<Option<u64>, String> {
    let found = env.blocking(|| rustix::fs::statvfs(Path::new("/"))).await;
    let found = found.map_err(|fault| fault.reason)?.map_err(|error| format!("disk: {error}"))?;
    // As df does: what root alone may have counts neither as used nor as free.
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    Ok(percent(used, used.saturating_add(found.f_bavail)))
}

fn percent(used: u64, whole: u64) -> Option<u64> {
    used.saturating_mul(100).checked_div(whole)
}

fn memory(meminfo: &str) -> Option<u64> {
    let of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let whole = of("MemTotal:")?;
    percent(whole.saturating_sub(of("MemAvailable:")?), whole)
}

/// How busy all processors were between two looks.
fn busy(first: &str, second: &str) -> Option<u64> {
    let ticks = |stat: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what guests have is in user already.
        let parts: Vec<u64> = line.split_whitespace().take(8).map_while(|part| part.parse().ok()).collect();
        let idle = parts.get(3)? + parts.get(4)?;
        Some((parts.iter().sum::<u64>(), idle))
    };
    let ((whole, idle), (whole_then, idle_then)) = (ticks(second)?, ticks(first)?);
    let (whole, idle) = (whole.checked_sub(whole_then)?, idle.saturating_sub(idle_then));
    if whole == 0 { Some(0) } else { percent(whole.saturating_sub(idle), whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_counted_as_the_machine_says_it() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:   150 kB\n";
        assert_eq!(memory(meminfo), Some(85));
        assert_eq!((memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), memory("")), (None, None));
        let (first, second) =
            ("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1\n", "cpu  190 0 50 805 55 0 0 0 0 0\n");
        assert_eq!(busy(first, second), Some(90));
        assert_eq!((busy(first, first), busy(second, first), busy("", "")), (Some(0), None, None));
        assert_eq!(percent(93, 100), Some(93));
    }

    #[tokio::test]
    async fn this_machine_says_how_much_is_used() {
        let env = Env::real();
        let memory = memory(&read(&env, "/proc/meminfo").await.unwrap()).unwrap();
        let disk = disk(&env).await.unwrap().unwrap();
        assert!(memory <= 100 && disk <= 100, "{memory} {disk}");
        assert!(read(&env, "/proc/none").await.is_err());
    }
}
