//! What the container runtime is given and what it says.

pub(crate) mod app_armor;
pub(crate) mod cdi;
pub(crate) mod cgroup;
pub(crate) mod container;
pub(crate) mod counted;
pub(crate) mod demand;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod expansion;
pub(crate) mod fields;
pub(crate) mod grant;
pub(crate) mod hostname;
pub(crate) mod huge_pages;
pub(crate) mod ids;
pub(crate) mod pleg;
pub(crate) mod pods;
pub(crate) mod resources;
pub(crate) mod runtime_class;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod service_env;
pub(crate) mod stop_signal;
pub(crate) mod swap;
pub(crate) mod sysctls;
pub(crate) mod termination_message;
pub(crate) mod user_namespace;
