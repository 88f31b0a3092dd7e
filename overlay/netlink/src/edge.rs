//! The edge in the kernel.

use covey_overlay::{
    edge::{JOINED_SWITCHES, SWITCHES},
    object::{Change, Observed},
};

use crate::{
    socket::Route,
    stack::{Stack, StackError, doing},
};

/// The edge of the network namespace in which it was opened.
pub struct Edge(Stack);

impl Edge {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel has no netlink.
    pub fn open() -> Result<Self, StackError> {
        let route = Route::open().map_err(doing("rtnetlink"))?;
        let switches = SWITCHES.iter().chain(JOINED_SWITCHES).copied().collect();
        Ok(Self(Stack::new(route, None, switches)))
    }

    /// What the kernel has of ours.
    ///
    /// # Errors
    /// A list could not be read.
    pub fn observe(&mut self) -> Result<Observed, StackError> {
        self.0.observe()
    }

    /// Takes one step. [`StackError::VniTaken`] where another VXLAN device of this host has the edge's VNI.
    ///
    /// # Errors
    /// Nothing of the step is left but what a later plan finds and mends.
    pub fn apply(&mut self, change: &Change) -> Result<(), StackError> {
        self.0.apply(std::slice::from_ref(change))
    }

    /// Takes steps in order, many at once. One that fails keeps none of the others back.
    ///
    /// # Errors
    /// That of the first step that failed; as [`Edge::apply`].
    pub fn apply_all(&mut self, changes: &[Change]) -> Result<(), StackError> {
        self.0.apply(changes)
    }
}
