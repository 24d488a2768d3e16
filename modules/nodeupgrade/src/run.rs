//! What is done in each phase, and noted before and after.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use edge_store::HeldStore;

use crate::exchange::When;
use crate::health::{self, Watched};
use crate::journal::{Before, Event, Journal};
use crate::journal_folder::JournalFolder;
use crate::plan::{Outcome, Phase};
use crate::{backup, service, store_lock, working};

/// 300 s in which whoever starts the machine, or has called for the taking up, starts edgecore.
const STARTED_WITHIN: Duration = Duration::from_secs(300);
/// A fifth of a second between two looks at whether he has: one that ends at once is to be seen.
const STARTED_LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is under way.
pub(crate) struct Run<'a> {
    journals: &'a JournalFolder,
    journal: Journal,
    /// The store, while nobody may start on it.
    held: Option<HeldStore>,
    env: &'a Env,
}

impl<'a> Run<'a> {
    /// Begins where the journal stands.
    pub(crate) fn of(journals: &'a JournalFolder, journal: Journal, env: &'a Env) -> Run<'a> {
        Run { journals, journal, held: None, env }
    }

    /// Goes on until nothing is left to do, or nothing can be before somebody else starts edgecore. Answers how it stands then.
    pub(crate) async fn through(mut self, say: &mut dyn FnMut(String)) -> Journal {
        self.drive(say).await;
        self.journal
    }

    async fn drive(&mut self, say: &mut dyn FnMut(String)) {
        while !self.journal.progress.is_done() && !self.journal.progress.awaits_start() {
            let phase = self.journal.progress.phase;
            // A phase that is not on the disk is not begun on the way forward; the way back is gone in any case.
            let written = self.journals.save(&self.journal);
            let came = match written {
                Err(error) if Phase::FORWARD.contains(&phase) => Err(error.context("the journal")),
                _ => self.effect(phase).await,
            };
            let came = came.map_err(|error| format!("{error:#}"));
            let sign = if came.is_ok() { "ok    " } else { "failed" };
            say(format!("{sign}  {phase:?}: {}", came.as_ref().unwrap_or_else(|why| why)));
            self.journal.note(self.seconds(), &came);
            match came {
                Ok(_) => self.journal.progress.succeeded(),
                Err(why) => self.journal.progress.failed(&why),
            }
        }
        if self.journal.progress.outcome == Some(Outcome::Refused) {
            self.journal.exchanges.iter().for_each(crate::exchange::Exchange::forget);
            // What stays goes with the next one.
            drop(working::remove_folder(&self.journals.incoming()));
        }
        let saved = self.journals.save(&self.journal);
        let reported = match self.journal.progress.is_done() {
            true => self.journals.report(&self.journal),
            false => Ok(()),
        };
        for written in [saved, reported] {
            if let Err(error) = written {
                say(format!("failed  it cannot be written how it ended: {error:#}"));
            }
        }
    }

    fn seconds(&self) -> u64 {
        self.env.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    async fn effect(&mut self, phase: Phase) -> Result<String> {
        match phase {
            Phase::PreCheck | Phase::BackUp | Phase::Done => bail!("this was to be prepared"),
            Phase::Stop | Phase::RollBack => {
                self.hold().await?;
                Ok("edgecore is stopped".to_owned())
            }
            // The release stays, and reads what it has written.
            Phase::BackUpStore | Phase::RestoreStore if self.is_of_settings() => {
                Ok("the store stays as it is".to_owned())
            }
            Phase::BackUpStore => self.back_up_store().await,
            Phase::Swap => self.swap().await,
            Phase::Start => self.start().await,
            Phase::Restart => match self.start().await {
                Err(error) if self.journal.bar.before == Before::Down => {
                    Ok(format!("edgecore did not run before, and does not now: {error:#}"))
                }
                started => started,
            },
            Phase::Health => self.watch(false).await,
            Phase::CheckRestarted if self.journal.bar.before == Before::Down => {
                Ok("edgecore did not run before, and no more is asked of it".to_owned())
            }
            Phase::CheckRestarted => match self.until_started().await? {
                true => self.watch(true).await,
                false => Ok("nobody has started edgecore: how it is nobody knows".to_owned()),
            },
            Phase::Confirm => self.confirm(),
            Phase::RestorePrograms => {
                let mut said = match self.is_of_settings() {
                    true => "edgecore.yaml is as it was".to_owned(),
                    false => format!("edgecore {} has its name again", self.journal.from_version),
                };
                for exchange in self.journal.exchanges.iter().rev() {
                    if let Some(kept) = exchange.restore()? {
                        said += &format!(
                            "; {} was edited meanwhile, and is kept so as {}",
                            exchange.path.display(),
                            kept.display()
                        );
                    }
                }
                Ok(said)
            }
            Phase::RestoreStore => self.restore_store().await,
        }
    }

    fn is_of_settings(&self) -> bool {
        self.journal.event == Event::ConfigUpdate
    }

    async fn start(&mut self) -> Result<String> {
        // Whoever starts edgecore wants it.
        self.held = None;
        let program = self.program()?;
        service::start(&self.journal.launch, &program, &self.journal.store, self.env).await
    }

    async fn back_up_store(&mut self) -> Result<String> {
        let (folder, event) = (self.journal.backup.clone(), self.journal.event);
        let held = self.hold().await?;
        match backup::refresh_store(&folder, held) {
            // Who is on the way back may be so for that.
            Err(error) if event == Event::Rollback && held.sound().is_err() => {
                Ok(format!("the store is not backed up, as it cannot be read: {error:#}"))
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.journal.is_store_current = true;
                Ok("the store is backed up as edgecore left it".to_owned())
            }
        }
    }

    fn program(&self) -> Result<PathBuf> {
        Ok(self.journal.program().context("the journal names no program")?.to_owned())
    }

    /// The store, with edgecore stopped.
    async fn hold(&mut self) -> Result<&HeldStore> {
        let held = match self.held.take() {
            Some(held) => held,
            // systemd waits for this to end, and would not answer.
            None if self.journal.progress.is_booting => service::hold(&self.journal.store, self.env).await?,
            None => service::stop(&self.journal.launch, &self.journal.store, self.env).await?,
        };
        Ok(self.held.insert(held))
    }

    async fn swap(&mut self) -> Result<String> {
        self.hold().await?;
        for exchange in self.journal.exchanges.iter().filter(|exchange| exchange.when == When::Swap) {
            exchange.swap()?;
        }
        if let Some(from) = self.journal.store_from.clone() {
            self.put_back(&from).await.context("the store of the backup")?;
        }
        Ok(match self.is_of_settings() {
            true => "edgecore.yaml has the new values".to_owned(),
            false => format!("edgecore {} has its name", self.journal.to_version),
        })
    }

    async fn watch(&self, only_stays: bool) -> Result<String> {
        let (program, store) = (self.program()?, &self.journal.store);
        let launch = &self.journal.launch;
        let (bar, is_booting) = (&self.journal.bar, only_stays && !self.journal.progress.boot.is_empty());
        let watched = Watched { program: &program, store, launch, bar, only_stays, is_booting };
        health::wait(&watched, self.env).await
    }

    /// Whether edgecore has been started by whoever starts the machine: he is given time for it.
    async fn until_started(&self) -> Result<bool> {
        if self.journal.progress.boot.is_empty() {
            return Ok(true);
        }
        let until = self.env.now() + STARTED_WITHIN;
        while store_lock::edgecore_on(&self.journal.store).is_none() {
            if service::ends_by_itself(&self.journal.launch, self.env).await {
                bail!("edgecore ends by itself again and again: {}", self.journal.launch.log_says_why());
            }
            if self.env.now() >= until {
                return Ok(false);
            }
            self.env.sleep(STARTED_LOOK_EVERY).await;
        }
        Ok(true)
    }

    /// Puts a copy in the place of the store; done again, once.
    async fn put_back(&mut self, from: &Path) -> Result<Option<PathBuf>> {
        let known = self.journal.put_back.get(from).and_then(|known| hex::decode(known).ok());
        let incarnation = match known.and_then(|known| <[u8; 16]>::try_from(known).ok()) {
            Some(incarnation) => incarnation,
            None => {
                let fresh = self.env.random_id();
                self.journal.put_back.insert(from.to_owned(), hex::encode(fresh));
                // On a full disk it is done without.
                drop(self.journals.save(&self.journal));
                fresh
            }
        };
        Ok(self.hold().await?.put_back(from, &incarnation)?)
    }

    fn confirm(&self) -> Result<String> {
        let exchanges = &self.journal.exchanges;
        let late = exchanges.iter().filter(|exchange| exchange.when == When::Confirm);
        let swapped: Vec<Result<()>> = late.map(crate::exchange::Exchange::swap).collect();
        let (to, backup) = (&self.journal.to_version, self.journal.backup.display());
        let mut said = match self.is_of_settings() {
            true => "the new values stay".to_owned(),
            false => format!("edgecore {to} stays; the one before is kept in {backup}"),
        };
        for exchange in exchanges {
            if let Some(kept) = exchange.settle()? {
                said += &format!("; {} as it was is {}", exchange.path.display(), kept.display());
            }
        }
        swapped.into_iter().collect::<Result<()>>()?;
        Ok(said)
    }

    /// The store goes back where the release that was there before cannot use it, where it is another one than that release left, as
    /// the new one has set it aside and begun anew, and where it is of a backup. What the new edgecore has accepted meanwhile stays in
    /// any other case.
    async fn restore_store(&mut self) -> Result<String> {
        let from = backup::store_in(&self.journal.backup);
        let is_of_backup = self.journal.store_from.is_some();
        let must = self.journal.progress.must_restore_store || is_of_backup;
        let had = self.journal.progress.may_have_run || is_of_backup;
        if !had || !self.journal.is_store_current {
            return Ok("the store is as it was: nobody else has had it".to_owned());
        }
        let held = self.hold().await?;
        let reason = match (held.sound(), held.is_that_of(&from)) {
            (Err(error), _) => error.to_string(),
            (Ok(()), Ok(false)) => "the new edgecore had begun another one".to_owned(),
            (Ok(()), _) if must => "it is put back".to_owned(),
            (Ok(()), _) => {
                return Ok("the store can be read as it is, and stays with what came in meanwhile".to_owned());
            }
        };
        let replaced = self.put_back(&from).await.with_context(|| format!("the store ({reason})"))?;
        let kept = replaced.map(|path| format!("; that one is {} now", path.display())).unwrap_or_default();
        Ok(format!("the store is the one of before ({reason}){kept}"))
    }
}
