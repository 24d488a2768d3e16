//! What targets ask for, from the mapper's environment: no secret stands in a Device.

use std::fmt;

/// What a mapper logs in with at its targets, in the environment variables of KubeEdge's mappers. It is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `TOKEN`: InfluxDB's.
    pub token: String,
    /// `USERNAME`: TDengine's.
    pub username: String,
    /// `PASSWORD`: TDengine's, Redis' and MySQL's.
    pub password: String,
}

impl Credentials {
    /// Those of this process.
    pub(crate) fn of_the_environment() -> Self {
        let of = |name: &str| std::env::var(name).unwrap_or_default();
        Credentials { token: of("TOKEN"), username: of("USERNAME"), password: of("PASSWORD") }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
