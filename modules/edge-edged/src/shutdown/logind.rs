//! systemd's logind: it waits with the end of the machine for who asks for that, and says when it begins.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use beehive::Env;

use crate::dbus::Argument::{Number, Text};
use crate::dbus::{self, Bus, Method};

const MANAGER: &str = "org.freedesktop.login1.Manager";
const PATH: &str = "/org/freedesktop/login1";
const NAME: &str = "org.freedesktop.login1";
const SIGNAL: &str = "PrepareForShutdown";
/// SIGHUP, by which logind reads its configuration again.
const HANGUP: i32 = 1;
/// Where logind reads how long it may be kept waiting, beside its own file.
const CONFIG: &str = "99-kubehive.conf";

/// A connection to logind.
pub(crate) struct Logind {
    bus: Bus,
}

fn of_logind(member: &str) -> Method<'_> {
    Method { destination: NAME, path: PATH, interface: MANAGER, member }
}

impl Logind {
    /// Connects to it by a bus' socket, and hears of the machine's end from now on.
    pub(crate) async fn connect(socket: &Path, env: &Env) -> io::Result<Logind> {
        let socket = socket.to_owned();
        let stream = env.blocking(move || dbus::connect(&socket)).await.map_err(io::Error::other)??;
        let mut bus = Bus::over(stream).await?;
        bus.add_match(&format!("type='signal',interface='{MANAGER}',member='{SIGNAL}',path='{PATH}'"))
            .await?;
        Ok(Logind { bus })
    }

    /// How long logind waits at the most.
    pub(crate) async fn longest_delay(&mut self) -> io::Result<Duration> {
        let get = Method {
            destination: NAME,
            path: PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let answer = self.bus.call(&get, &[Text(MANAGER), Text("InhibitDelayMaxUSec")]).await?;
        let microseconds = answer.number_in_variant();
        microseconds
            .map(Duration::from_micros)
            .ok_or_else(|| io::Error::other("InhibitDelayMaxUSec is no number"))
    }

    /// Has logind wait for as long as the descriptor is open.
    pub(crate) async fn inhibit(&mut self) -> io::Result<OwnedFd> {
        let words = ["shutdown", "edgecore", "EdgeCore needs time to end the node's pods", "delay"];
        self.bus.call(&of_logind("Inhibit"), &words.map(Text)).await?;
        self.bus.descriptor().ok_or_else(|| io::Error::other("Inhibit answered without a descriptor"))
    }

    /// Waits until the machine is to end, or is not any more.
    pub(crate) async fn changed(&mut self) -> io::Result<bool> {
        loop {
            let signal = self.bus.signal().await?;
            if signal.is_signal(MANAGER, SIGNAL)
                && let Some(begins) = signal.boolean()
            {
                return Ok(begins);
            }
        }
    }

    /// Has logind read its configuration again.
    pub(crate) async fn reload(&mut self) -> io::Result<()> {
        let name = "org.freedesktop.systemd1";
        let manager = Method {
            destination: name,
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "KillUnit",
        };
        let arguments = [Text("systemd-logind.service"), Text("all"), Number(HANGUP)];
        self.bus.call(&manager, &arguments).await.map(drop)
    }
}

/// Writes into `folder` (`/etc/systemd/logind.conf.d`) that logind waits for so long. Blocks.
pub(crate) fn allow_delay(folder: &Path, delay: Duration) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    fs::write(folder.join(CONFIG), format!("[Login]\nInhibitDelayMaxSec={seconds}\n"))
}
