//! What is sealed: the one place that decides it.

use crate::Table;

/// Secret objects: their data, service-account tokens that are kept as secrets, and image-pull secrets.
const SECRETS: &str = "secrets";
/// Jobs on nodes: with them comes the Secret that registries are shown.
const JOBS: [&str; 3] = [
    "nodeupgradejobs.operations.kubeedge.io",
    "imageprepulljobs.operations.kubeedge.io",
    "configupdatejobs.operations.kubeedge.io",
];

/// Whether objects of this resource are sealed.
pub(crate) fn seals_objects(resource: &str) -> bool {
    resource == SECRETS || JOBS.contains(&resource)
}

/// Whether rows of this table are sealed.
pub(crate) fn seals_rows(table: Table) -> bool {
    match table {
        Table::Tokens => true,
        Table::Twins
        | Table::DeviceStates
        | Table::Mappers
        | Table::Retained
        | Table::MqttSessions
        | Table::PodStatuses
        | Table::Allocations
        | Table::Facts => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_cloud() {
        assert!(seals_objects(contract::ids::SECRETS));
        assert!(contract::TaskKind::ALL.into_iter().all(|kind| seals_objects(kind.resource())));
        for resource in [contract::ids::PODS, contract::ids::CONFIG_MAPS, contract::ids::NODES] {
            assert!(!seals_objects(resource), "{resource}");
        }
        let sealed: Vec<_> = Table::ALL.into_iter().filter(|table| seals_rows(*table)).collect();
        assert_eq!(sealed, [Table::Tokens]);
    }
}
