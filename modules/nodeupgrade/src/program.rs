//! What a program says of itself: in its head, for which machine it is, and on being asked, which version.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use elf::Unfit;
use tokio::io::AsyncReadExt as _;

use crate::files;
use crate::version::Version;

/// 1 MiB of a program: its head, and the name of its loader.
const HEAD: u64 = 1 << 20;
/// 10 s for `--version`: a large program on a slow card.
const SAYS_WITHIN: Duration = Duration::from_secs(10);
/// 4 KiB of what it prints.
const SAYS_MAX: u64 = 4 << 10;

/// A program, by one open of its file: what is looked at is what is run, whatever its name leads to meanwhile.
pub(crate) struct Program {
    file: File,
    /// What whoever handed it in calls it.
    called: String,
}

impl Program {
    /// Opens it.
    ///
    /// # Errors
    /// When it is not there, no regular file, or a link.
    pub(crate) fn open(path: &Path) -> Result<Program> {
        Ok(Program { file: files::open_regular(path)?, called: path.display().to_string() })
    }

    /// The same, called as whoever reads of it knows it: a copy has a name that nobody has given it.
    pub(crate) fn called(self, called: String) -> Program {
        Program { called, ..self }
    }

    /// SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// When the disk does not read it.
    pub(crate) fn sum(&self) -> Result<String> {
        let at = || format!("cannot read {}", self.called);
        (&self.file).rewind().with_context(at)?;
        Ok(files::sum_of(&mut &self.file, u64::MAX).with_context(at)?.0)
    }

    /// Whether it is a program that this machine can start.
    ///
    /// # Errors
    /// What is wrong with it, and the cure.
    pub(crate) fn fits_machine(&self) -> Result<()> {
        let mut head = Vec::new();
        let at = || format!("cannot read {}", self.called);
        (&self.file).rewind().with_context(at)?;
        (&self.file).take(HEAD).read_to_end(&mut head).with_context(at)?;
        fits_machine(&head).with_context(|| self.called.clone())
    }

    /// Which version it says it is of.
    ///
    /// # Errors
    /// By what it is called, when it does not start, does not end, or says something else.
    pub(crate) async fn version(&self, name: &str, env: &Env) -> Result<Version> {
        // The descriptor is there until the program is, and closed then.
        let own = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        version_of(&own, name, env).await.with_context(|| self.called.clone())
    }
}

/// Which version the program at `path` says it is of, if it is one called `name`.
///
/// # Errors
/// When there is none, it does not start, does not end, or says something else.
pub async fn says_version(path: &Path, name: &str, env: &Env) -> Result<Version> {
    Program::open(path)?.version(name, env).await
}

fn fits_machine(head: &[u8]) -> Result<()> {
    let (machine, is_64_bit) = elf::HERE;
    let name =
        |machine: u16| elf::architecture(machine).map_or_else(|| format!("machine {machine}"), str::to_owned);
    match elf::check(head, machine, is_64_bit) {
        Ok(()) => Ok(()),
        // A program that was built for this very system has one.
        Err(Unfit::Loader(loader)) if Path::new(&loader).exists() => Ok(()),
        Err(Unfit::Loader(loader)) => {
            bail!(
                "it needs {loader}, which this machine does not have: take the program of a release, which needs none"
            )
        }
        Err(Unfit::Machine(found)) => bail!(
            "it is for {}, and this machine is {}: take that of linux-{}",
            name(found),
            name(machine),
            name(machine)
        ),
        Err(Unfit::NotElf) => bail!(
            "it is no program, or is cut off: fetch it again (an image's archive goes with --image-archive)"
        ),
        Err(Unfit::NotProgram) => bail!("it is an object or a library, and no program"),
    }
}

async fn version_of(path: &Path, name: &str, env: &Env) -> Result<Version> {
    let mut command = tokio::process::Command::new(path);
    command.arg0(name).arg("--version").env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("it does not start")?;
    let stdout = child.stdout.take().context("it cannot be heard")?;
    let says = async {
        let mut said = Vec::new();
        stdout.take(SAYS_MAX).read_to_end(&mut said).await?;
        let status = child.wait().await?;
        Ok::<_, std::io::Error>((said, status))
    };
    let says = env.timeout(SAYS_WITHIN, says).await;
    let says =
        says.with_context(|| format!("it has not ended within {} s with --version", SAYS_WITHIN.as_secs()))?;
    let (said, status) = says.context("it cannot be heard with --version")?;
    if !status.success() {
        bail!("it ended with {status} when asked for its --version");
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    Version::said(&said, name).with_context(|| {
        let first: String = said.chars().take(80).collect();
        format!("its --version says `{}`, and not `{name} VERSION`", first.trim().escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[actix_rt::test]
    async fn what_was_looked_at_is_run_whatever_has_its_name_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore");
        // A program that is there on every machine, and says something else than a version.
        fs::copy("/bin/echo", &path).unwrap();
        let program = Program::open(&path).unwrap();
        let sum = program.sum().unwrap();
        program.fits_machine().unwrap();
        fs::copy("/bin/false", folder.path().join("other")).unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        let error = format!("{:#}", program.version("edgecore", &Env::real()).await.unwrap_err());
        assert!(error.contains("its --version says") && error.starts_with(path.to_str().unwrap()), "{error}");
        assert_eq!(program.sum().unwrap(), sum);
        let other = Program::open(&path).unwrap().called("what was handed in".to_owned());
        let error = format!("{:#}", other.version("edgecore", &Env::real()).await.unwrap_err());
        assert!(error.starts_with("what was handed in: it ended with"), "{error}");
    }
}
