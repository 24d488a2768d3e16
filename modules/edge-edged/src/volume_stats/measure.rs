//! Measuring one volume.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use contract::csi::CsiMsg;
use contract::volume_stats::VolumeUsage;

use super::plan::{self, How, Measured};
use crate::dependencies::{Dependencies, blocking};
use crate::disk::beneath::Folder;
use crate::error::StepError;
use crate::eviction::measure::count_at;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::unending::{self, HangsOn};
use crate::volumes;

/// 2 min 30 s: more than EdgeCsi gives a driver.
const DRIVER_DEADLINE: Duration = Duration::from_secs(150);

/// The volumes of a pod, by the store.
pub(super) async fn volumes_of(deps: &Rc<Dependencies>, pod: &Arc<ParsedPod>) -> Vec<Measured> {
    let (store, pod) = (deps.store.clone(), Arc::clone(pod));
    let look = move || {
        let find = |key: &apimachinery::ObjectKey| store.by_key(key).ok().flatten();
        Ok(plan::measured(&pod, &volumes::used(&pod), &find))
    };
    blocking(&deps.env, "read objects from the store", look).await.unwrap_or_default()
}

/// What a volume holds; `None`: it has no figures.
pub(super) async fn measure(deps: &Rc<Dependencies>, uid: &str, of: &Measured) -> Option<VolumeUsage> {
    let at = deps.env.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let root = deps.settings.root.clone();
    match &of.how {
        How::Driver(name) => {
            let ask = |reply| CsiMsg::Stats { pod_uid: uid.to_owned(), name: name.clone(), reply };
            match deps.csi.as_ref()?.ask(DRIVER_DEADLINE, ask).await {
                Ok(Ok(usage)) => usage,
                Ok(Err(fault)) => {
                    tracing::debug!(volume = name, error = %fault, "volume has no figures");
                    None
                }
                Err(_) => None,
            }
        }
        How::FileSystem(path) => {
            let place = root.join(path);
            let on = HangsOn::Ours { root: root.clone(), at: path.clone() };
            let what = "measure a volume in";
            let look = file_system(root, path.clone(), at);
            // Of one that never answers, this thread alone is lost.
            unending::run(&deps.env, on, &place, DRIVER_DEADLINE, what, look).await.ok().flatten()
        }
        How::Counted(path) => {
            let look = file_system(root.clone(), path.clone(), at);
            let whole = blocking(&deps.env, "measure a volume in", look).await.ok().flatten()?;
            let counted = count_at(&deps.env, root, path.clone(), None).await.ok()?;
            Some(VolumeUsage { used: counted.bytes, inodes_used: counted.inodes, ..whole })
        }
    }
}

/// The file system at a place below `rootDirectory`; `None`: nothing is there.
fn file_system(
    root: PathBuf,
    path: PathBuf,
    at: i64,
) -> impl FnOnce() -> Result<Option<VolumeUsage>, StepError> + Send + 'static {
    move || {
        let Some(folder) = Folder::find_root(&root)? else { return Ok(None) };
        let Some(folder) = folder.find(&path)? else { return Ok(None) };
        let whole = folder.file_system()?;
        let bytes = |blocks: u64| blocks.saturating_mul(whole.f_frsize);
        Ok(Some(VolumeUsage {
            at,
            available: bytes(whole.f_bavail),
            capacity: bytes(whole.f_blocks),
            used: bytes(whole.f_blocks.saturating_sub(whole.f_bfree)),
            inodes_free: whole.f_ffree,
            inodes: whole.f_files,
            inodes_used: whole.f_files.saturating_sub(whole.f_ffree),
        }))
    }
}
