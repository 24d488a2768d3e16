//! Who may: `rbac.authorization.k8s.io/v1`, reviews, token requests; and evictions and scales.

use super::schema::Type::{Bool, Int32, Int64, Message as Of, Text, Time, Words};
use super::schema::{Message, full, list, map, said};
use super::schema_meta::{
    DELETE_OPTIONS, FIELD_SELECTOR_REQUIREMENT, LABEL_SELECTOR, LABEL_SELECTOR_REQUIREMENT, OBJECT_META,
};

pub(super) static POLICY_RULE: Message = Message {
    name: "PolicyRule",
    fields: &[
        list(1, "verbs", Text),
        list(2, "apiGroups", Text),
        list(3, "resources", Text),
        list(4, "resourceNames", Text),
        list(5, "nonResourceURLs", Text),
    ],
};

pub(super) static ROLE: Message = Message {
    name: "Role",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), list(2, "rules", Of(&POLICY_RULE))],
};

pub(super) static AGGREGATION_RULE: Message =
    Message { name: "AggregationRule", fields: &[list(1, "clusterRoleSelectors", Of(&LABEL_SELECTOR))] };

pub(super) static CLUSTER_ROLE: Message = Message {
    name: "ClusterRole",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        list(2, "rules", Of(&POLICY_RULE)),
        said(3, "aggregationRule", Of(&AGGREGATION_RULE)),
    ],
};

pub(super) static SUBJECT: Message = Message {
    name: "Subject",
    fields: &[
        said(1, "kind", Text),
        full(2, "apiGroup", Text),
        said(3, "name", Text),
        full(4, "namespace", Text),
    ],
};

pub(super) static ROLE_REF: Message = Message {
    name: "RoleRef",
    fields: &[said(1, "apiGroup", Text), said(2, "kind", Text), said(3, "name", Text)],
};

pub(super) static ROLE_BINDING: Message = Message {
    name: "RoleBinding",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        list(2, "subjects", Of(&SUBJECT)),
        said(3, "roleRef", Of(&ROLE_REF)),
    ],
};

pub(super) static CLUSTER_ROLE_BINDING: Message = Message {
    name: "ClusterRoleBinding",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        list(2, "subjects", Of(&SUBJECT)),
        said(3, "roleRef", Of(&ROLE_REF)),
    ],
};

pub(super) static BOUND_OBJECT_REFERENCE: Message = Message {
    name: "BoundObjectReference",
    fields: &[
        full(1, "kind", Text),
        full(2, "apiVersion", Text),
        full(3, "name", Text),
        full(4, "uid", Text),
    ],
};

pub(super) static TOKEN_REQUEST_SPEC: Message = Message {
    name: "TokenRequestSpec",
    fields: &[
        list(1, "audiences", Text),
        said(3, "boundObjectRef", Of(&BOUND_OBJECT_REFERENCE)),
        said(4, "expirationSeconds", Int64),
    ],
};

pub(super) static TOKEN_REQUEST_STATUS: Message = Message {
    name: "TokenRequestStatus",
    fields: &[said(1, "token", Text), said(2, "expirationTimestamp", Time)],
};

pub(super) static TOKEN_REQUEST: Message = Message {
    name: "TokenRequest",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&TOKEN_REQUEST_SPEC)),
        said(3, "status", Of(&TOKEN_REQUEST_STATUS)),
    ],
};

pub(super) static TOKEN_REVIEW_SPEC: Message =
    Message { name: "TokenReviewSpec", fields: &[full(1, "token", Text), list(2, "audiences", Text)] };

pub(super) static USER_INFO: Message = Message {
    name: "UserInfo",
    fields: &[
        full(1, "username", Text),
        full(2, "uid", Text),
        list(3, "groups", Text),
        map(4, "extra", Words),
    ],
};

pub(super) static TOKEN_REVIEW_STATUS: Message = Message {
    name: "TokenReviewStatus",
    fields: &[
        full(1, "authenticated", Bool),
        said(2, "user", Of(&USER_INFO)),
        full(3, "error", Text),
        list(4, "audiences", Text),
    ],
};

pub(super) static TOKEN_REVIEW: Message = Message {
    name: "TokenReview",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&TOKEN_REVIEW_SPEC)),
        said(3, "status", Of(&TOKEN_REVIEW_STATUS)),
    ],
};

pub(super) static FIELD_SELECTOR_ATTRIBUTES: Message = Message {
    name: "FieldSelectorAttributes",
    fields: &[full(1, "rawSelector", Text), list(2, "requirements", Of(&FIELD_SELECTOR_REQUIREMENT))],
};

pub(super) static LABEL_SELECTOR_ATTRIBUTES: Message = Message {
    name: "LabelSelectorAttributes",
    fields: &[full(1, "rawSelector", Text), list(2, "requirements", Of(&LABEL_SELECTOR_REQUIREMENT))],
};

pub(super) static RESOURCE_ATTRIBUTES: Message = Message {
    name: "ResourceAttributes",
    fields: &[
        full(1, "namespace", Text),
        full(2, "verb", Text),
        full(3, "group", Text),
        full(4, "version", Text),
        full(5, "resource", Text),
        full(6, "subresource", Text),
        full(7, "name", Text),
        said(8, "fieldSelector", Of(&FIELD_SELECTOR_ATTRIBUTES)),
        said(9, "labelSelector", Of(&LABEL_SELECTOR_ATTRIBUTES)),
    ],
};

pub(super) static NON_RESOURCE_ATTRIBUTES: Message =
    Message { name: "NonResourceAttributes", fields: &[full(1, "path", Text), full(2, "verb", Text)] };

pub(super) static SUBJECT_ACCESS_REVIEW_SPEC: Message = Message {
    name: "SubjectAccessReviewSpec",
    fields: &[
        said(1, "resourceAttributes", Of(&RESOURCE_ATTRIBUTES)),
        said(2, "nonResourceAttributes", Of(&NON_RESOURCE_ATTRIBUTES)),
        full(3, "user", Text),
        list(4, "groups", Text),
        map(5, "extra", Words),
        full(6, "uid", Text),
    ],
};

pub(super) static SUBJECT_ACCESS_REVIEW_STATUS: Message = Message {
    name: "SubjectAccessReviewStatus",
    fields: &[
        said(1, "allowed", Bool),
        full(2, "reason", Text),
        full(3, "evaluationError", Text),
        full(4, "denied", Bool),
    ],
};

pub(super) static SUBJECT_ACCESS_REVIEW: Message = Message {
    name: "SubjectAccessReview",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&SUBJECT_ACCESS_REVIEW_SPEC)),
        said(3, "status", Of(&SUBJECT_ACCESS_REVIEW_STATUS)),
    ],
};

pub(super) static SELF_SUBJECT_ACCESS_REVIEW_SPEC: Message = Message {
    name: "SelfSubjectAccessReviewSpec",
    fields: &[
        said(1, "resourceAttributes", Of(&RESOURCE_ATTRIBUTES)),
        said(2, "nonResourceAttributes", Of(&NON_RESOURCE_ATTRIBUTES)),
    ],
};

pub(super) static SELF_SUBJECT_ACCESS_REVIEW: Message = Message {
    name: "SelfSubjectAccessReview",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&SELF_SUBJECT_ACCESS_REVIEW_SPEC)),
        said(3, "status", Of(&SUBJECT_ACCESS_REVIEW_STATUS)),
    ],
};

pub(super) static EVICTION: Message = Message {
    name: "Eviction",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), said(2, "deleteOptions", Of(&DELETE_OPTIONS))],
};

pub(super) static SCALE_SPEC: Message = Message { name: "ScaleSpec", fields: &[full(1, "replicas", Int32)] };

pub(super) static SCALE_STATUS: Message =
    Message { name: "ScaleStatus", fields: &[said(1, "replicas", Int32), full(2, "selector", Text)] };

pub(super) static SCALE: Message = Message {
    name: "Scale",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&SCALE_SPEC)),
        said(3, "status", Of(&SCALE_STATUS)),
    ],
};
