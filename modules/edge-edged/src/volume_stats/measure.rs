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
        How::FileSystem(path) => file_system(deps, root, path.clone(), at).await,
        How::Counted(path) => {
            let whole = file_system(deps, root.clone(), path.clone(), at).await?;
            let counted = count_at(&deps.env, root, path.clone(), None).await.ok()?;
            Some(VolumeUsage { used: counted.bytes, inodes_used: counted.inodes, ..whole })
        }
    }
}

/// The file system at a place below `rootDirectory`; `None`: nothing is there.
async fn file_system(deps: &Rc<Dependencies>, root: PathBuf, path: PathBuf, at: i64) -> Option<VolumeUsage> {
    let place = root.join(&path);
    let look = move || {
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
    };
    // Of one that never answers, this thread alone is lost.
    let what = "measure a volume in";
    unending::run(&deps.env, HangsOn::Figures, &place, DRIVER_DEADLINE, what, look).await.ok().flatten()
}
