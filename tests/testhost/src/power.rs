//! A power cut: what a machine loses with its power, and what its disk keeps.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{TestHost, run};

impl TestHost {
    /// Takes the power away: the runtime, its shims and all that ran in containers end by SIGKILL; the network, every
    /// mount below the host's folder, the cgroups and the runtime's state folder are gone, as what lies in memory is.
    /// The runtime's root folder and the pods' addresses stay, as what lies on the disk does.
    ///
    /// What else the caller started in the host's namespace is the caller's to end first.
    ///
    /// # Errors
    /// When something of it cannot be taken away.
    pub fn cut_power(&mut self) -> Result<()> {
        self.kill_runtime()?;
        self.end_containers();
        if let Some(outer) = self.outer_link() {
            // The namespace goes in its own time, and its end of the pair would be in the way until then.
            run(Command::new("ip").args(["link", "delete", &outer]))?;
        }
        run(Command::new("ip").args(["netns", "delete", self.netns()]))?;
        let state = self.state();
        std::fs::remove_dir_all(&state).with_context(|| format!("empty folder {}", state.display()))?;
        std::fs::create_dir_all(&state).with_context(|| format!("make folder {}", state.display()))?;
        // The sockets lie in memory on a real machine.
        for socket in [self.socket(), PathBuf::from(format!("{}.ttrpc", self.socket().display()))] {
            drop(std::fs::remove_file(socket));
        }
        Ok(())
    }

    /// The power is back: the network is made anew. [`TestHost::restart_runtime`] starts the runtime on what the disk
    /// kept.
    ///
    /// # Errors
    /// When the network cannot be made; it names the command that failed.
    pub fn restore_power(&mut self) -> Result<()> {
        let (from, to) = ("/proc/sys/kernel/random/uuid", self.boot_id_file());
        let id = std::fs::read(from).with_context(|| format!("read {from}"))?;
        std::fs::write(&to, id).with_context(|| format!("write {}", to.display()))?;
        self.make_network()
    }

    /// Where this machine's boot id stands: another one after each power cut, and none before the first.
    #[must_use]
    pub fn boot_id_file(&self) -> PathBuf {
        self.dir().join("boot_id")
    }

    fn state(&self) -> PathBuf {
        self.dir().join("state")
    }
}
