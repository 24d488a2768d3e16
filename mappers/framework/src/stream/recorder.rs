//! What takes the frames of one stream and saves them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::Env;

use crate::backoff::Backoff;
use crate::fault::Fault;
use crate::stream::album::{Album, Film};
use crate::stream::plan::StreamPlan;
use crate::stream::{FRAME_MAX, Frame, FrameSource};
use crate::subscription::Subscription;
use crate::value::Value;

/// 15 s: a frame that has not come by then does not come.
const FRAME_WITHIN: Duration = Duration::from_secs(15);
/// 1 s before a stream that failed is tried again; doubles up to a minute.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Saves what a property says of its stream, and tells the path of each file.
pub(crate) struct Recorder {
    pub(crate) source: Box<dyn FrameSource>,
    pub(crate) plan: StreamPlan,
    /// The folder below which streams are saved.
    pub(crate) root: Option<Arc<Path>>,
    pub(crate) device: NamespacedName,
    pub(crate) property: String,
    pub(crate) values: Subscription,
    /// The property's place in the subscription.
    pub(crate) place: usize,
    pub(crate) env: Env,
    /// What was saved last, since the last failure.
    pub(crate) saved: Option<String>,
}

impl Recorder {
    /// Until all is saved, or for ever.
    pub(crate) async fn run(mut self) {
        let mut retry = RETRY;
        loop {
            let began = self.env.now();
            let pause = match self.round().await {
                Ok(()) => {
                    retry.reset();
                    let Some(repeat) = self.plan.repeat else { return self.source.rest() };
                    repeat.saturating_sub(self.env.now().since(began))
                }
                Err(fault) => {
                    self.failed(fault);
                    self.env.jitter(retry.delay())
                }
            };
            self.source.rest();
            self.env.sleep(pause).await;
        }
    }

    async fn round(&mut self) -> Result<(), Fault> {
        let album = self.album().await?;
        if self.plan.is_film {
            for _ in 0..self.plan.films {
                self.film(&album).await?;
            }
            return Ok(());
        }
        for taken in 0..self.plan.frames {
            let frame = self.frame(taken == 0).await?;
            let (album, at) = (album.clone(), self.env.wall());
            let saved = self.on_disk(move || album.save(at, &frame.bytes)).await?;
            self.tell(&saved);
        }
        Ok(())
    }

    async fn film(&mut self, album: &Album) -> Result<(), Fault> {
        let (folder, at) = (album.clone(), self.env.wall());
        let mut film: Film = self.on_disk(move || folder.begin(at)).await?;
        for taken in 0..self.plan.frames {
            let frame = self.frame(taken == 0).await?;
            let has_room;
            (film, has_room) = self
                .on_disk(move || {
                    let has_room = film.add(&frame.bytes)?;
                    Ok((film, has_room))
                })
                .await?;
            if !has_room {
                break;
            }
        }
        let folder = album.clone();
        let saved = self.on_disk(move || folder.finish(film)).await?;
        self.tell(&saved);
        Ok(())
    }

    async fn frame(&mut self, is_first: bool) -> Result<Frame, Fault> {
        let after = if is_first { Duration::ZERO } else { self.plan.interval };
        let within = after + FRAME_WITHIN;
        let Some(came) = self.env.timeout(within, self.source.next(after)).await else {
            return Err(Fault::Silent(format!("no picture has come within {} s", within.as_secs())));
        };
        let frame = came?;
        if frame.bytes.len() > FRAME_MAX {
            return Err(Fault::Device(format!("it sends a picture of more than {FRAME_MAX} bytes")));
        }
        let endings = if self.plan.is_film { frame.format.films } else { frame.format.pictures };
        if !endings.contains(&self.plan.format.as_str()) {
            let format = &self.plan.format;
            return Err(Fault::Unfit(match endings.first() {
                Some(ending) => format!("`format` is {format}, and what comes is {ending}; write that"),
                None => format!("what comes can't be saved as `{format}`, one frame in a file or several"),
            }));
        }
        Ok(frame)
    }

    async fn album(&self) -> Result<Album, Fault> {
        let (root, plan) = (self.root.clone(), self.plan.clone());
        let (device, property) = (self.device.clone(), self.property.clone());
        let opened = self.env.blocking(move || Album::open(root.as_deref(), &plan, &device, &property)).await;
        opened.map_err(|fault| Fault::Unfit(fault.reason))?.map_err(Fault::Unfit)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let done = self.env.blocking(work).await.map_err(|fault| Fault::Unfit(fault.reason))?;
        done.map_err(|error| {
            let folder = self.plan.folder.display();
            Fault::Unfit(format!("cannot save into {folder}: {error}"))
        })
    }

    fn tell(&mut self, saved: &Path) {
        let saved = saved.display().to_string();
        self.values.push(self.place, Ok(Value::Text(saved.clone())));
        self.saved = Some(saved);
    }

    /// What broke off in the middle is told beside the file that it has left.
    fn failed(&mut self, fault: Fault) {
        let fault = match (self.saved.take(), of_the_stream(fault)) {
            (Some(saved), fault) => Fault::Doubtful(Value::Text(saved), fault.to_string()),
            (None, fault) => fault,
        };
        self.values.push(self.place, Err(fault));
    }
}

/// A stream has a connection of its own: its end is not that of the session.
fn of_the_stream(fault: Fault) -> Fault {
    match fault {
        Fault::Link(reason) | Fault::NotSent(reason) => Fault::Silent(reason),
        other => other,
    }
}
