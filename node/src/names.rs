//! Names of hosts and groups: looked up in files and by DNS, never by a plug-in of the C library.
//!
//! A static binary that loads such a plug-in (`/etc/nsswitch.conf` names them) crashes where the host's C library is not
//! the very one that it was built with.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// glibc, nss.h: what `/etc/nsswitch.conf` says of a database does not count for this process.
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// To be called before the first look-up, while there is one thread.
pub fn use_built_in() {
    let lookups: [(&CStr, &CStr); 3] =
        [(c"hosts", c"files dns"), (c"group", c"files"), (c"passwd", c"files")];
    for (database, services) in lookups {
        // SAFETY: both are constant strings; glibc copies what it needs.
        let failed = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) } != 0;
        if failed {
            tracing::warn!(?database, "names may be looked up by plug-ins of the C library");
        }
    }
}
