//! The end of a router.

use std::path::Path;

use covey_overlay::object::Change;

use crate::{
    namespace::{self, NamespaceError},
    stack::{Stack, StackError},
};

/// A router could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its links are still there.
    #[error("links of a router")]
    Links(#[from] StackError),
    /// Its namespace still has its name.
    #[error("namespace of a router")]
    Namespace(#[from] NamespaceError),
}

/// Removes a router with all its links, and its namespace; its VNIs are free when this returns. A namespace that is not
/// there is no error; no [`Stack`] of it may be open.
///
/// # Errors
/// It is still there.
pub fn remove_router(path: &Path) -> Result<(), RemoveError> {
    match Stack::router(path, None) {
        Ok(mut router) => {
            let links = router.observe()?.links.into_keys().map(Change::DeleteLink);
            router.apply_all(&links.collect::<Vec<_>>())?;
        }
        // Nothing is there, or only a file that never became a namespace.
        Err(StackError::Namespace { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(namespace::remove(path)?)
}
