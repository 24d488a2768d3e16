//! What an actor is called: its kind, and which of its kind it is.

use std::sync::Arc;

/// The name of an actor among those of one parent: a kind, known when the program is built, and, where there are many
/// of one kind, an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    kind: &'static str,
    instance: Option<Arc<str>>,
}

impl Name {
    /// The kind: what the topology and the policy go by.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Which of its kind.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The full name below `parent`'s full name: `parent/kind:instance`.
    pub(crate) fn below(&self, parent: &str) -> Arc<str> {
        format!("{parent}/{self}").into()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{}:{instance}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

impl From<&'static str> for Name {
    fn from(kind: &'static str) -> Self {
        Name { kind, instance: None }
    }
}

impl<T: AsRef<str>> From<(&'static str, T)> for Name {
    fn from((kind, instance): (&'static str, T)) -> Self {
        Name { kind, instance: Some(instance.as_ref().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_name_is_a_path_of_kinds_and_instances() {
        let one = Name::from(("worker", "a/b"));
        assert_eq!((one.kind(), one.instance()), ("worker", Some("a/b")));
        assert_eq!(&*one.below("manager"), "manager/worker:a/b");
        assert_eq!(&*Name::from("listener").below("manager"), "manager/listener");
    }
}
