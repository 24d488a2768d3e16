//! Which of EdgeCore's code runs while a node is idle, and the linker's script that puts it together: `edge/code_order.ld`.
//!
//! EdgeCore runs at the stage under an emulator, `qemu-x86_64`, which writes a line for each block of code that it runs. The linker's
//! map tells whose code that is.

mod link_map;
mod patterns;
mod script;
mod trace;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::task::JoinHandle;

use crate::{Console, Outcome, Testbed, idle};
use link_map::LinkMap;
use trace::{PARTS, Trace};

const EMULATOR: &str = "qemu-x86_64";
/// What this program is called in the stage's folder of binaries when it becomes the emulator, what it finds beside it then.
const STAND_IN: &str = "edgecore";
const PROGRAM: &str = "edgecore.emulated";
const LOG: &str = "edgecore.trace";
/// What else the stage starts.
const OTHERS: [&str; 2] = ["cloudcore", "keadm"];
/// What takes a second takes half a minute under an emulator that tells all.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the node is left alone before what runs counts as what always runs.
const CALM: Duration = Duration::from_secs(30);
/// 1 MiB of the log at once.
const CHUNK: usize = 1 << 20;

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the linker said of the folder's `edgecore`.
    pub map: PathBuf,
    /// Where the script goes.
    pub script: PathBuf,
    /// How long an idle node is watched.
    pub length: Duration,
}

/// Becomes the emulator with EdgeCore in it, if this program was started in its stead. Answers only otherwise, or with why it can't.
pub fn stand_in() -> Option<std::io::Error> {
    let own = PathBuf::from(std::env::args_os().next()?);
    let folder = own.parent().filter(|_| own.file_name().is_some_and(|name| name == STAND_IN))?;
    let mut command = Command::new(EMULATOR);
    command.args(["-d", "exec,nochain", "-D"]).arg(folder.join(LOG)).arg(folder.join(PROGRAM));
    Some(command.args(std::env::args_os().skip(1)).exec())
}

/// Runs it with the programs of this folder, on a stage of its own.
pub async fn run(binaries: &Path, options: &Options, seed: u64, console: &Console) -> Outcome {
    Outcome::of("the order of edgecore's code", async |outcome| {
        story(binaries, options, seed, console, outcome).await
    })
    .await
}

async fn story(
    binaries: &Path,
    options: &Options,
    seed: u64,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let map = std::fs::read_to_string(&options.map)
        .with_context(|| format!("read the linker's map {}", options.map.display()))?;
    let map = LinkMap::read(&map).map_err(|error| anyhow!("{}: {error}", options.map.display()))?;
    let folder = Folder::make(binaries)?;
    let log = EmulatorLog::follow(&folder.0.join(LOG), &map)?;
    let mut testbed = Testbed::with_patience("order", &folder.0, seed, console, PATIENCE).await?;
    idle::in_sync(&mut testbed).await?;
    wait(&mut testbed, &log, CALM).await?;
    console.at(&format!("watching an idle node for {} s", options.length.as_secs()));
    for part in 1..PARTS {
        log.part.store(part, Ordering::Release);
        wait(&mut testbed, &log, options.length / (PARTS - 1)).await?;
    }
    drop(testbed);
    let trace = log.end().await?;
    let (script, figures) = script::script(&map, &trace);
    if figures.steady == 0 || figures.start == 0 {
        bail!(
            "nothing of the map's code ran: is {} that of the edgecore beside keadm?",
            options.map.display()
        );
    }
    std::fs::write(&options.script, &script)
        .with_context(|| format!("write {}", options.script.display()))?;
    outcome.row("blocks of code that ran", trace.blocks.to_string());
    outcome.row("functions that ran", figures.sections.to_string());
    outcome.row("code that runs always", format!("{} kB", figures.steady / 1000));
    outcome.row("code that ran at the start or seldom", format!("{} kB", figures.start / 1000));
    outcome.row("the script", format!("{}: {} kB", options.script.display(), script.len() / 1000));
    Ok(())
}

async fn wait(testbed: &mut Testbed, log: &EmulatorLog, length: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(1).min(length.saturating_sub(begun.elapsed()))).await;
        testbed.check()?;
        if log.reader.is_finished() {
            bail!("the emulator's log is not read any more");
        }
    }
    Ok(())
}

/// The stage's programs, with this one in EdgeCore's stead. Dropping it removes them.
struct Folder(PathBuf);

impl Folder {
    fn make(binaries: &Path) -> Result<Folder> {
        let found = Command::new(EMULATOR).arg("--version").output();
        if !found.is_ok_and(|found| found.status.success()) {
            bail!("{EMULATOR} does not start: install it (Debian's and Ubuntu's package is qemu-user)");
        }
        let path = std::env::temp_dir().join(format!("kubehive-order-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let folder = Folder(path);
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, folder.0.join(name)).with_context(|| format!("link {name}"))
        };
        for name in OTHERS {
            link(&binaries.join(name), name)?;
        }
        link(&binaries.join("edgecore"), PROGRAM)?;
        link(&std::env::current_exe().context("the path of this program")?, STAND_IN)?;
        // The standard library has no call for it.
        let made = Command::new("mkfifo").arg(folder.0.join(LOG)).status().context("start mkfifo")?;
        if !made.success() {
            bail!("mkfifo makes no pipe in {}", folder.0.display());
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The emulator's log while it is written: a gigabyte in some seconds, of which no byte is kept. Dropping it ends the reading.
struct EmulatorLog {
    /// Holds the pipe open and wakes the reader at the end.
    pipe: File,
    /// Which part of the time it is; [`ENDED`].
    part: Arc<AtomicU32>,
    reader: JoinHandle<Result<Trace>>,
}

/// No part: nothing is written any more.
const ENDED: u32 = u32::MAX;

impl EmulatorLog {
    fn follow(path: &Path, map: &LinkMap) -> Result<EmulatorLog> {
        // Opened for both, it is there at once, and no end of a writer is its end.
        let mut log = File::options().read(true).write(true).open(path).context("open the emulator's log")?;
        let pipe = log.try_clone().context("open the emulator's log twice")?;
        let part = Arc::new(AtomicU32::new(0));
        let (mut trace, now) = (Trace::of(map), Arc::clone(&part));
        let reader = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK];
            loop {
                let length = log.read(&mut chunk).context("read the emulator's log")?;
                let part = now.load(Ordering::Acquire);
                if part == ENDED {
                    return Ok(trace);
                }
                trace.read(&chunk[..length], part).map_err(|error| anyhow!("{error}"))?;
            }
        });
        Ok(EmulatorLog { pipe, part, reader })
    }

    /// What it told.
    async fn end(mut self) -> Result<Trace> {
        self.wake();
        (&mut self.reader).await.context("the reader of the emulator's log")?
    }

    fn wake(&mut self) {
        self.part.store(ENDED, Ordering::Release);
        // A reader that has ended would leave a full pipe full.
        if !self.reader.is_finished() {
            let _ = self.pipe.write_all(b"\n");
        }
    }
}

impl Drop for EmulatorLog {
    fn drop(&mut self) {
        self.wake();
    }
}
