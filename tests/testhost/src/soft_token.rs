//! A PKCS#11 token that we did not write: SoftHSM's, by OpenSC's `pkcs11-tool`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TOOL: &str = "/usr/bin/pkcs11-tool";
const LABEL: &str = "My edge";
const PIN: &str = "1234";

/// Who has it has the process's token.
static TURN: Mutex<()> = Mutex::new(());

/// A token of its own, which goes with it. SoftHSM finds it by the environment of the process: a process has one at a time, and the next
/// one waits.
pub struct SoftToken {
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl SoftToken {
    /// Makes one under `folder`. `None`, and said, where SoftHSM or OpenSC is not installed.
    ///
    /// # Errors
    /// When they are, and make none.
    pub fn under(folder: &Path) -> Result<Option<SoftToken>> {
        if !Path::new(MODULE).exists() || !Path::new(TOOL).exists() {
            #[allow(clippy::print_stderr)] // By it a run shows what it has not tried.
            {
                eprintln!("skipped: {MODULE} or {TOOL} is missing (apt-get install softhsm2 opensc)");
            }
            return Ok(None);
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let token = SoftToken { folder: folder.join("token"), _turn: turn };
        std::fs::create_dir_all(token.folder.join("tokens"))?;
        let config = token.folder.join("softhsm2.conf");
        let text = format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n", token.folder.display());
        std::fs::write(&config, text)?;
        // SAFETY: tests make it before anything else that reads the environment runs.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", &config);
        }
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", "12345678", "--pin", PIN])
            .output()
            .context("softhsm2-util does not run")?;
        if !made.status.success() {
            bail!("softhsm2-util made no token: {}", String::from_utf8_lossy(&made.stderr));
        }
        token.write_pin(PIN)?;
        Ok(Some(token))
    }

    /// The URI (RFC 7512) of the token, with where its PIN is.
    pub fn uri(&self) -> String {
        let label = LABEL.replace(' ', "%20");
        format!("pkcs11:token={label}?module-path={MODULE}&pin-source=file:{}", self.pin().display())
    }

    /// The file with the PIN.
    pub fn pin(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// Has the PIN's file say another one.
    ///
    /// # Errors
    /// When it is not written.
    pub fn write_pin(&self, pin: &str) -> Result<()> {
        std::fs::write(self.pin(), pin)?;
        Ok(std::fs::set_permissions(self.pin(), std::fs::Permissions::from_mode(0o600))?)
    }

    /// Has the PIN's file say the right one.
    ///
    /// # Errors
    /// When it is not written.
    pub fn right_pin(&self) -> Result<()> {
        self.write_pin(PIN)
    }

    /// How many private keys are in it, by OpenSC's word.
    ///
    /// # Errors
    /// When it does not say.
    pub fn keys(&self) -> Result<usize> {
        let said = Command::new(TOOL)
            .args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", PIN])
            .args(["--list-objects", "--type", "privkey"])
            .output()
            .context("pkcs11-tool does not run")?;
        if !said.status.success() {
            bail!("pkcs11-tool lists no keys: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(String::from_utf8_lossy(&said.stdout).matches("Private Key Object").count())
    }
}
