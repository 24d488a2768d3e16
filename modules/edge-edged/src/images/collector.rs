//! Removes images that nothing uses: an actor and a child of Edged's.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

use beehive::{Actor, Capacity, Context, Fault, Message, Moment, Policy};
use cri::v1::ContainerFilter;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::dependencies::{Dependencies, blocking};
use crate::disk::folders;
use crate::error::StepError;
use crate::images::access::Records;
use crate::images::collection::{Fill, InUse, Unused};
use crate::node::machine::{self, Disk};
use crate::pod::recorder::EventType;

/// 10 min after a pull was broken off its runtime brings nothing of it any more.
const BROKEN_OFF: SignedDuration = SignedDuration::from_mins(10);
/// So many pulls that were broken off are looked at in one go.
const SETTLED_MAX: usize = 1000;

/// Its name among Edged's children.
pub(crate) const IMAGE_COLLECTOR: &str = "image-collector";

/// Messages to the collector.
#[derive(Debug)]
pub(crate) enum ImageCollectorMsg {
    /// It is time.
    Collect,
    /// A collection has ended.
    Collected(Result<(), String>),
}

impl Message for ImageCollectorMsg {
    fn name(&self) -> &'static str {
        match self {
            ImageCollectorMsg::Collect => "Collect",
            ImageCollectorMsg::Collected(_) => "Collected",
        }
    }
}

/// Looks every five minutes whether images should go.
pub(crate) struct ImageCollector {
    deps: Rc<Dependencies>,
    began: Moment,
    collecting: bool,
    failed_before: bool,
}

impl ImageCollector {
    pub(crate) fn new(deps: Rc<Dependencies>) -> ImageCollector {
        let began = deps.now();
        ImageCollector { deps, began, collecting: false, failed_before: false }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(4, "the timer's message and the end of one collection"),
            ..Policy::default()
        }
    }

    /// Beside the actor: a runtime may take long.
    fn collect(&mut self, cx: &Context<ImageCollectorMsg>) {
        if std::mem::replace(&mut self.collecting, true) {
            return;
        }
        let (deps, began, own) = (Rc::clone(&self.deps), self.began, cx.myself());
        cx.spawn(async move {
            let result = collect(&deps, began).await;
            let _ = own.tell(ImageCollectorMsg::Collected(result)).await;
        });
    }

    fn collected(&mut self, result: Result<(), String>) {
        self.collecting = false;
        // Once can be a start that is not over.
        if let Err(error) = &result
            && self.failed_before
        {
            self.deps.node_event(EventType::Warning, "ImageGCFailed", error);
        }
        self.failed_before = result.is_err();
    }
}

impl Actor for ImageCollector {
    type Message = ImageCollectorMsg;

    async fn started(&mut self, cx: &mut Context<ImageCollectorMsg>) -> Result<(), Fault> {
        cx.every(self.deps.settings.image_collection.every, || ImageCollectorMsg::Collect);
        // Which images there are is known from the start on.
        self.collect(cx);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: ImageCollectorMsg,
        cx: &mut Context<ImageCollectorMsg>,
    ) -> Result<(), Fault> {
        match message {
            ImageCollectorMsg::Collect => self.collect(cx),
            ImageCollectorMsg::Collected(result) => self.collected(result),
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({"collecting": self.collecting, "failed": self.failed_before})
    }
}

/// Removes what is too old, and what has to go to make room.
async fn collect(deps: &Rc<Dependencies>, began: Moment) -> Result<(), String> {
    let settings = &deps.settings.image_collection;
    let (now, wall) = (deps.now(), deps.wall());
    // Whoever removed them: what is put here by hand after that is no pull's.
    prune(deps, wall).await;
    settle(deps, wall).await;
    // Also where nothing is to go: since when an image is here counts when the disk is full, too.
    let mut unused = unused(deps).await?;
    if settings.high_percent >= 100 && settings.max_age.is_none() {
        return Ok(());
    }
    let (mut errors, mut removed) = (Vec::new(), BTreeSet::new());
    if let Some(max) = settings.max_age {
        for image in unused.extract_if(.., |image| image.is_too_old(max, began, now)) {
            remove(deps, &image, &mut removed, &mut errors).await;
        }
    }
    let disk = disk(deps).await?;
    if disk.size == 0 {
        let text = "invalid capacity 0 on image filesystem".to_owned();
        deps.node_event(EventType::Warning, "InvalidDiskCapacity", &text);
        return Err(text);
    }
    let fill = Fill { capacity: disk.size, available: disk.available };
    let excess = fill.excess(settings.high_percent, settings.low_percent);
    let mut freed = 0;
    if let Some(excess) = excess.filter(|_| settings.high_percent < 100) {
        unused.retain(|image| image.may_go(settings.min_age, now));
        for image in unused {
            if freed >= excess {
                break;
            }
            if remove(deps, &image, &mut removed, &mut errors).await {
                freed = freed.saturating_add(image.size);
            }
        }
        if freed < excess && errors.is_empty() {
            let text = fill.insufficient(freed);
            deps.node_event(EventType::Warning, "FreeDiskSpaceFailed", &text);
            errors.push(text);
        }
    }
    if !removed.is_empty() {
        prune(deps, wall).await;
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// The images that nothing uses, those first that go first.
async fn unused(deps: &Rc<Dependencies>) -> Result<Vec<Unused>, String> {
    let asked = futures::future::try_join(
        deps.runtime.list_images(),
        // Those of others, too.
        deps.runtime.list_containers(ContainerFilter::default()),
    );
    let (images, containers) = asked.await.map_err(|error| error.to_string())?;
    let mut names = deps.images_wanted.borrow().clone();
    names.extend(deps.pulling.borrow().keys().cloned());
    names.extend(names.clone().iter().filter_map(|name| crate::images::reference::full(name)));
    for container in containers {
        names.insert(container.image_ref);
        names.extend(container.image.map(|image| image.image));
    }
    let in_use = InUse { names, sandbox: sandbox_image(deps).await };
    Ok(deps.image_uses.borrow_mut().unused(&images, &in_use, deps.now()))
}

/// The sandboxes' image, where the runtime tells it: containerd does, as `sandboxImage` in its config.
async fn sandbox_image(deps: &Rc<Dependencies>) -> Option<String> {
    let info = deps.runtime.status_info().await.ok()?;
    let config: Value = serde_json::from_str(info.get("config")?).ok()?;
    config.get("sandboxImage")?.as_str().map(str::to_owned)
}

async fn remove(
    deps: &Rc<Dependencies>,
    image: &Unused,
    removed: &mut BTreeSet<String>,
    errors: &mut Vec<String>,
) -> bool {
    match deps.runtime.remove_image(&image.id).await {
        Ok(()) => {
            crate::events::image_removed(&deps.env, &image.id, image.size);
            removed.insert(image.id.clone());
            true
        }
        Err(error) => {
            errors.push(error.to_string());
            false
        }
    }
}

/// Forgets how images were pulled that are gone.
async fn prune(deps: &Rc<Dependencies>, began: jiff::Timestamp) {
    let Ok(images) = deps.runtime.list_images().await else { return };
    let kept: BTreeSet<String> = images.into_iter().map(|image| image.id).collect();
    let _turn = deps.image_records.lock().await;
    let root = deps.settings.root.clone();
    let work = move || Records::open(&folders::root(&root)?)?.prune(&kept, began);
    if let Err(error) = blocking(&deps.env, "forget images in", work).await {
        tracing::warn!(%error, "records of images that are gone stay");
    }
}

/// What pulls brought that were broken off is theirs who could have pulled it, and of those that brought nothing no word stays: whoever
/// makes jobs can have any number of them broken off.
async fn settle(deps: &Rc<Dependencies>, now: jiff::Timestamp) {
    if let Err(error) = settled(deps, now).await {
        tracing::warn!(%error, "words of pulls that were broken off stay");
    }
}

async fn settled(deps: &Rc<Dependencies>, now: jiff::Timestamp) -> Result<(), StepError> {
    let (before, root) = (now - BROKEN_OFF, deps.settings.root.clone());
    let look = move || Records::open(&folders::root(&root)?)?.begun_before(before, SETTLED_MAX);
    for image in blocking(&deps.env, "look at the records of images in", look).await? {
        // One that the runtime says nothing of now holds up no other.
        let Ok(brought) = deps.runtime.image_status(&image).await else { continue };
        let brought = brought.map(|image| image.id);
        let _turn = deps.image_records.lock().await;
        // Whoever pulls it now says how that ends.
        if deps.pulling.borrow().contains_key(&image) {
            continue;
        }
        let root = deps.settings.root.clone();
        let settle = move || {
            let records = Records::open(&folders::root(&root)?)?;
            match records.has_begun_before(&image, before)? {
                true => records.end_unknown(&image, brought.as_deref(), &now.to_string()),
                false => Ok(()),
            }
        };
        blocking(&deps.env, "forget pulls in", settle).await?;
    }
    Ok(())
}

/// Removes all images that nothing uses and that nobody is about to use.
pub(crate) async fn remove_unused(deps: &Rc<Dependencies>) -> Result<(), String> {
    let (now, wall) = (deps.now(), deps.wall());
    let (mut errors, mut removed) = (Vec::new(), BTreeSet::new());
    for image in unused(deps).await? {
        if image.may_go(deps.settings.image_collection.min_age, now) {
            remove(deps, &image, &mut removed, &mut errors).await;
        }
    }
    if !removed.is_empty() {
        prune(deps, wall).await;
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Where the runtime's images lie.
pub(crate) async fn images_mount(deps: &Rc<Dependencies>) -> Result<PathBuf, String> {
    let known = deps.images_mount.borrow().clone();
    if let Some(known) = known {
        return Ok(known);
    }
    let told = deps.runtime.image_filesystems().await.map_err(|error| error.to_string())?;
    let mount = told.into_iter().find_map(|images| images.fs_id).map(|id| PathBuf::from(id.mountpoint));
    let mount = mount.ok_or_else(|| "the runtime does not tell where its images lie".to_owned())?;
    deps.images_mount.replace(Some(mount.clone()));
    Ok(mount)
}

/// The images' file system.
async fn disk(deps: &Rc<Dependencies>) -> Result<Disk, String> {
    let mount = images_mount(deps).await?;
    let look = move || Ok(machine::disk_of(&mount));
    blocking(&deps.env, "look at the images' disk", look).await.map_err(|error| error.to_string())
}
