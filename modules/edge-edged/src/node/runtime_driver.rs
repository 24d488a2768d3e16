//! Who makes the runtime's cgroups: asked once in its life, by whoever needs to know it first.

use std::time::Duration;

use cri::v1::CgroupDriver;
use nodechecks::cgroup_driver_mismatch;

use crate::dependencies::Dependencies;
use crate::events;

/// 10 s: a runtime that works says it at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What the runtime says; `None`: it does not, and is asked again the next time. A mismatch is told once.
pub(crate) async fn ask(deps: &Dependencies) -> Option<CgroupDriver> {
    let known = deps.node.borrow().cgroup_driver;
    if known.is_some() {
        return known;
    }
    let said = deps.env.timeout(ANSWERS_WITHIN, deps.runtime.cgroup_driver()).await;
    let driver = said.and_then(Result::ok).flatten();
    let before = std::mem::replace(&mut deps.node.borrow_mut().cgroup_driver, driver);
    if before.is_none()
        && let Some(what) = cgroup_driver_mismatch(deps.settings.cgroup_driver, driver)
    {
        events::cgroup_driver_mismatch(&deps.env, &what);
    }
    driver
}
