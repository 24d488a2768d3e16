//! The store: whether it can be read, and whose it is. The verdicts are pure.

use std::path::Path;

use edge_store::{StoreError, StoreInspector};
use nodechecks::Finding;

use crate::store::plain;

const STORE: &str = "Store";

/// The store, if there is one: whether it can be read, and whose it is.
pub(crate) fn store(path: &Path, node: &str) -> (Finding, Option<StoreInspector>) {
    let shown = path.display();
    let inspector = match StoreInspector::open(path) {
        Ok(inspector) => inspector,
        Err(StoreError::Missing { .. }) => {
            return (Finding::passed(STORE, format!("{shown} is not there yet: edgecore makes it")), None);
        }
        Err(error @ StoreError::OfKubeEdge { .. }) => {
            return (Finding::failed(STORE, error.to_string()), None);
        }
        Err(error) => {
            let cure = "edgecore sets a broken one aside when it starts, salvages its rows and fetches the rest from the cloud: `systemctl restart edgecore`";
            let words = plain(&anyhow::Error::from(error).to_string());
            return (Finding::failed(STORE, format!("{words}: {cure}")), None);
        }
    };
    (of_store(&inspector, path, node), Some(inspector))
}

fn of_store(inspector: &StoreInspector, path: &Path, node: &str) -> Finding {
    let shown = path.display();
    if let Some(of) = inspector.node().filter(|of| !node.is_empty() && of != node) {
        let error = StoreError::OtherNode { path: path.to_owned(), of, node: node.to_owned() };
        return Finding::failed(STORE, error.to_string());
    }
    if let Some(trouble) = inspector.key_trouble() {
        return Finding::warned(
            STORE,
            format!("{trouble}; edgecore fetches them again from the cloud when it starts"),
        );
    }
    let (rows, reports) = match (inspector.entries(None, None, false), inspector.reports(None)) {
        (Ok(rows), Ok(reports)) => (rows, reports),
        (Err(error), _) | (_, Err(error)) => {
            return Finding::failed(
                STORE,
                format!("{error}: `systemctl restart edgecore` sets a broken one aside"),
            );
        }
    };
    let damaged = rows.iter().filter(|row| row.damage.is_some()).count()
        + reports.iter().filter(|report| report.damage.is_some()).count();
    let words = format!(
        "{shown} at revision {}: {} rows, {} reports wait for the cloud",
        inspector.revision(),
        rows.len(),
        reports.len()
    );
    match damaged {
        0 => Finding::passed(STORE, words),
        _ => Finding::warned(
            STORE,
            format!(
                "{words}, {damaged} damaged (`keadm store show` names them): objects come again from the cloud when edgecore is restarted"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade::{Failed, Passed, Warned};
    use std::fs;

    use super::*;
    use crate::debug::testing::grade;

    #[test]
    fn a_store_that_is_broken_or_anothers_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.db");
        grade(&store(&path, "edge-1").0, Passed, "not there yet");
        let mut options = edge_store::Options::new([1; 16]);
        options.node = Some("edge-1".to_owned());
        drop(edge_store::Store::open(&path, options).unwrap());
        grade(&store(&path, "edge-1").0, Passed, "0 rows, 0 reports");
        grade(&store(&path, "edge-2").0, Failed, "edge-1");
        fs::remove_file(folder.path().join("edgecore.db.key")).unwrap();
        grade(&store(&path, "edge-1").0, Warned, "fetches them again");
        fs::write(&path, b"no database").unwrap();
        grade(&store(&path, "edge-1").0, Failed, "sets a broken one aside");
    }
}
