//! What users write and install, as it stands in errors, too.

/// The program, as Debian's and Fedora's packages have it.
pub const PROGRAM: &str = "/usr/bin/pkcs11-tool";
/// How the URI of a token looks.
pub(crate) const EXAMPLE: &str =
    "`pkcs11:token=edge?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/kubehive/pin`";
