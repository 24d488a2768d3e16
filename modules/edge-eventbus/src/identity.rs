//! Who a client is. Pure.
//!
//! A client is known by its name: of an anonymous one that is its client id, of a user's `user=NAME;` and the client id.
//! Sessions, queues, logs and the sources that the cloud sees go by this name, so that every user, and all anonymous
//! clients together, have client ids of their own: nobody takes over, displaces or passes for a client of another user.

use std::rc::Rc;

use crate::plan;

/// How the name of a user's client begins. No anonymous client's id may.
const USER: &str = "user=";
/// What stands between the user and the client id; no user's name has it.
const END: char = ';';
/// What `edgecore` calls itself in logs: no client has this id, no user this name.
const RESERVED: &str = "edgecore";

/// Under which name what comes from an external broker, and goes there, is kept and counted: no user is called `edgecore`.
pub(crate) const EXTERNAL: &str = "user=edgecore;external";

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// The node itself.
    Node,
    /// All anonymous clients together.
    Anonymous,
    /// A user, with all his clients.
    User(Rc<str>),
}

/// Whose a client is; the empty name is the node's.
pub(crate) fn owner(name: &str) -> Owner {
    match parts(name).0 {
        Some(user) => Owner::User(user.into()),
        None if name.is_empty() => Owner::Node,
        None => Owner::Anonymous,
    }
}

/// Why a user name or a client id is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidName(pub(crate) &'static str);

/// What is wrong with a user's name, in the password file or in a certificate.
pub(crate) fn user_defect(name: &str) -> Option<InvalidName> {
    if name.is_empty() || name.len() > plan::USER_BYTES {
        return Some(InvalidName("user name is empty or longer than 64 bytes"));
    }
    // mosquitto refuses the wildcards, too, as patterns put the name into filters.
    if name.contains(['+', '#', '/', END]) || name.chars().any(char::is_control) {
        return Some(InvalidName("user name has one of + # / ; or a control character"));
    }
    (name == RESERVED).then_some(InvalidName("user name `edgecore` is reserved"))
}

/// The name of a client.
pub(crate) fn name(user: Option<&str>, client_id: &str) -> Result<Rc<str>, InvalidName> {
    // It is shown in logs and to the cloud, where it could pass for something else.
    if client_id.chars().any(char::is_control) {
        return Err(InvalidName("client id has a control character"));
    }
    let name: Rc<str> = match user {
        Some(user) => format!("{USER}{user}{END}{client_id}").into(),
        None if client_id.starts_with(USER) || client_id == RESERVED => {
            return Err(InvalidName("client id is reserved"));
        }
        None => client_id.into(),
    };
    if name.len() > plan::CLIENT_ID_BYTES { Err(InvalidName("client id is too long")) } else { Ok(name) }
}

/// The user and the client id of a name.
pub(crate) fn parts(name: &str) -> (Option<&str>, &str) {
    match name.strip_prefix(USER).and_then(|rest| rest.split_once(END)) {
        Some((user, client_id)) => (Some(user), client_id),
        None => (None, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_anonymous_client_has_the_name_of_a_users() {
        assert_eq!(name(Some("plc"), "a;b").as_deref(), Ok("user=plc;a;b"));
        assert_eq!(name(None, "user=plc;a"), Err(InvalidName("client id is reserved")));
        assert_eq!(name(None, "edgecore"), Err(InvalidName("client id is reserved")));
        assert_eq!(name(None, "edgecore-1").as_deref(), Ok("edgecore-1"));
        assert!(name(Some("plc"), &"x".repeat(120)).is_err() && name(Some("plc"), &"x".repeat(119)).is_ok());
        for id in ["a\nb", "\u{1b}[2J", "a\r", "\u{85}"] {
            assert!(name(None, id).is_err() && name(Some("plc"), id).is_err(), "{id:?}");
        }
        assert_eq!(owner("user=plc;a"), Owner::User("plc".into()));
        assert_eq!((owner("a"), owner("")), (Owner::Anonymous, Owner::Node));
        for user in ["", "a+", "#", "a/b", "a;b", "a\nb", "edgecore", &"x".repeat(65)] {
            assert!(user_defect(user).is_some(), "{user}");
        }
        for user in ["plc", "system:node:edge-1", "größe", "%u", "edge router"] {
            assert_eq!(user_defect(user), None, "{user}");
        }
    }

    proptest! {
        #[test]
        fn a_name_says_whose_it_is(user in proptest::option::of("[a-z=]{1,9}"), id in "[a-z=;]{0,12}|user=[a-z;]{0,4}") {
            if let Ok(name) = name(user.as_deref(), &id) {
                prop_assert_eq!(parts(&name), (user.as_deref(), id.as_str()));
            } else {
                prop_assert!(user.is_none());
            }
        }
    }
}
