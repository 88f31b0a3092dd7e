//! How SWIM sees a node: its id is its address for life; of two lives of one node the newer counts.

use covey_wire::Id;

use crate::member::Peer;

impl foca::Identity for Peer {
    type Addr = Id;

    /// Never by itself: a new incarnation must be on disk before anybody sees it.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> Id {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.replaces(adversary)
    }
}
