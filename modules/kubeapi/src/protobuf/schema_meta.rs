//! What all kinds share: `meta/v1`.

use super::schema::Type::{Bool, Int64, Message as Of, RawJson, Text, Time};
use super::schema::{Message, full, list, map, said};

pub(super) static OWNER_REFERENCE: Message = Message {
    name: "OwnerReference",
    fields: &[
        said(1, "kind", Text),
        said(3, "name", Text),
        said(4, "uid", Text),
        said(5, "apiVersion", Text),
        said(6, "controller", Bool),
        said(7, "blockOwnerDeletion", Bool),
    ],
};

pub(super) static MANAGED_FIELDS_ENTRY: Message = Message {
    name: "ManagedFieldsEntry",
    fields: &[
        full(1, "manager", Text),
        full(2, "operation", Text),
        full(3, "apiVersion", Text),
        said(4, "time", Time),
        full(6, "fieldsType", Text),
        said(7, "fieldsV1", RawJson),
        full(8, "subresource", Text),
    ],
};

pub(super) static OBJECT_META: Message = Message {
    name: "ObjectMeta",
    fields: &[
        full(1, "name", Text),
        full(2, "generateName", Text),
        full(3, "namespace", Text),
        full(4, "selfLink", Text),
        full(5, "uid", Text),
        full(6, "resourceVersion", Text),
        full(7, "generation", Int64),
        said(8, "creationTimestamp", Time),
        said(9, "deletionTimestamp", Time),
        said(10, "deletionGracePeriodSeconds", Int64),
        map(11, "labels", Text),
        map(12, "annotations", Text),
        list(13, "ownerReferences", Of(&OWNER_REFERENCE)),
        list(14, "finalizers", Text),
        list(17, "managedFields", Of(&MANAGED_FIELDS_ENTRY)),
        full(15, "clusterName", Text),
    ],
};

pub(super) static LABEL_SELECTOR_REQUIREMENT: Message = Message {
    name: "LabelSelectorRequirement",
    fields: &[said(1, "key", Text), said(2, "operator", Text), list(3, "values", Text)],
};

pub(super) static LABEL_SELECTOR: Message = Message {
    name: "LabelSelector",
    fields: &[map(1, "matchLabels", Text), list(2, "matchExpressions", Of(&LABEL_SELECTOR_REQUIREMENT))],
};

pub(super) static CONDITION: Message = Message {
    name: "Condition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        full(3, "observedGeneration", Int64),
        said(4, "lastTransitionTime", Time),
        said(5, "reason", Text),
        said(6, "message", Text),
    ],
};

pub(super) static PRECONDITIONS: Message =
    Message { name: "Preconditions", fields: &[said(1, "uid", Text), said(2, "resourceVersion", Text)] };

pub(super) static DELETE_OPTIONS: Message = Message {
    name: "DeleteOptions",
    fields: &[
        said(1, "gracePeriodSeconds", Int64),
        said(2, "preconditions", Of(&PRECONDITIONS)),
        said(3, "orphanDependents", Bool),
        said(4, "propagationPolicy", Text),
        list(5, "dryRun", Text),
        said(6, "ignoreStoreReadErrorWithClusterBreakingPotential", Bool),
    ],
};

pub(super) static FIELD_SELECTOR_REQUIREMENT: Message = Message {
    name: "FieldSelectorRequirement",
    fields: &[said(1, "key", Text), said(2, "operator", Text), list(3, "values", Text)],
};
