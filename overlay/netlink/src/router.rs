//! The router of an overlay network in the kernel: a namespace of its own on each host that carries the network.

use std::{fs::File, io, path::Path};

use covey_overlay::{
    network::SWITCHES,
    object::{Change, Observed},
};

use crate::{
    namespace::{self, NamespaceError},
    socket::Route,
    stack::{Elsewhere, Stack, StackError, doing},
};

/// A router.
pub struct Router(Stack);

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

impl Router {
    /// Opens the router in the namespace that [`namespace::create`] made at `path`. To be called in the host's
    /// namespace: the UDP sockets of its VXLAN devices will be there.
    ///
    /// # Errors
    /// [`StackError::Namespace`], or the kernel has no netlink.
    pub fn open(path: &Path) -> Result<Self, StackError> {
        let missing = |source: io::Error| StackError::Namespace { path: path.to_owned(), source };
        let file = File::open(path).map_err(missing)?;
        let route =
            namespace::inside(path, || Ok(Route::open())).map_err(missing)?.map_err(doing("rtnetlink"))?;
        let host = Route::open().map_err(doing("rtnetlink"))?;
        let elsewhere = Elsewhere { path: path.to_owned(), file, host };
        Ok(Self(Stack::new(route, Some(elsewhere), SWITCHES.to_vec())))
    }

    /// What the kernel has in this namespace.
    ///
    /// # Errors
    /// A list could not be read.
    pub fn observe(&mut self) -> Result<Observed, StackError> {
        self.0.observe()
    }

    /// Takes one step. [`StackError::VniTaken`] where another VXLAN device has the VNI, as when the namespace of a
    /// router of before is still there.
    ///
    /// # Errors
    /// Nothing of the step is left but what a later plan finds and mends.
    pub fn apply(&mut self, change: &Change) -> Result<(), StackError> {
        self.0.apply(std::slice::from_ref(change))
    }

    /// Takes steps in order, many at once. One that fails keeps none of the others back.
    ///
    /// # Errors
    /// That of the first step that failed; as [`Router::apply`].
    pub fn apply_all(&mut self, changes: &[Change]) -> Result<(), StackError> {
        self.0.apply(changes)
    }

    /// Removes a router with all its links, and its namespace; its VNIs are free when this returns. A namespace that
    /// is not there is no error; no [`Router`] of it may be open.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(path: &Path) -> Result<(), RemoveError> {
        match Self::open(path) {
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
}
