//! A test host whose pods' cgroups go with it.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use testhost::TestHost;

/// A test host whose pods' cgroups go with it.
pub struct Machine {
    // Ends first: what runs holds its cgroups.
    host: TestHost,
    _cgroups: Cgroups,
}

impl Machine {
    /// One of the plain kind.
    pub fn new(name: &str) -> Machine {
        Machine::made_by(TestHost::builder(name))
    }

    /// One whose pods Edged reaches by their addresses.
    pub fn with_uplink(name: &str) -> Machine {
        Machine::made_by(TestHost::builder(name).uplink())
    }

    /// One that is made by `builder`.
    pub fn made_by(builder: testhost::Builder) -> Machine {
        let host = builder.start().unwrap();
        let _cgroups = Cgroups(host.netns().to_owned());
        Machine { host, _cgroups }
    }
}

impl Deref for Machine {
    type Target = TestHost;
    fn deref(&self) -> &TestHost {
        &self.host
    }
}

impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut TestHost {
        &mut self.host
    }
}

/// The cgroups below this name, in every hierarchy.
struct Cgroups(String);

impl Drop for Cgroups {
    fn drop(&mut self) {
        for top in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
            remove_cgroup(&top.join(&self.0));
        }
    }
}

/// The deepest first; one that was never made is no matter.
fn remove_cgroup(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    drop(std::fs::remove_dir(path));
}
