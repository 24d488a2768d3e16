//! How names of hosts are looked up in a program that is linked statically.
//!
//! The C library asks the sources that `/etc/nsswitch.conf` names, and loads a library for each of them except `files` and
//! `dns`, which it has in itself since glibc 2.34. A static program would load such a library, and with it a second C library of
//! whatever version the machine has; that fails at best. So a static program asks these two whatever the file says:
//! `/etc/hosts`, then the servers, search domains and options of `/etc/resolv.conf`, which is read again whenever it changes.
//! systemd-resolved's names come by its server at 127.0.0.53; what only a library gives (`.local` by multicast) does not come.
//!
//! A program that is linked to the machine's own C library does as `/etc/nsswitch.conf` says.
#![allow(unsafe_code)] // One call of the C library, which has no safe form: it says why it is sound.

/// Fixes where names are looked up. The first that a program does, before it has a second thread.
pub fn from_files_and_dns() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, sources) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        // SAFETY: both are strings that end in a zero byte, and the C library copies what it keeps of them (nss.h).
        let failed = unsafe { __nss_configure_lookup(database.as_ptr(), sources.as_ptr()) };
        debug_assert_eq!(failed, 0, "the C library knows its own databases");
    }
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
unsafe extern "C" {
    fn __nss_configure_lookup(
        database: *const std::ffi::c_char,
        sources: *const std::ffi::c_char,
    ) -> std::ffi::c_int;
}
