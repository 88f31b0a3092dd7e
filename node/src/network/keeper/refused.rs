//! Published ports that this host cannot take: tried again, and told to the managers.

use std::{collections::BTreeMap, time::Duration};

use super::Keeper;
use crate::{
    clock,
    refused::{Cause, Published, REFUSED_MAX, RefusedPort},
};

/// Between two tries: whoever has freed a port waits no longer for it to answer.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl Keeper {
    /// Tries ports again that somebody else had.
    pub(super) fn retry_refused(&mut self) {
        self.retry_at = None;
        if self.begun {
            self.edge.retry_refused();
            let taken = self.edge.balancer.commit();
            self.mend_soon(taken);
        }
    }

    /// Tells what has changed of the ports that services publish and this host cannot take.
    pub(super) fn tell_refused(&mut self) {
        if self.edge.refused.is_empty() {
            self.retry_at = None;
        } else {
            self.retry_at.get_or_insert_with(|| clock::monotonic() + RETRY_EVERY);
        }
        let refused = self.refused_ports();
        self.refused.send_if_modified(|told| {
            let changed = *told != refused;
            *told = refused;
            changed
        });
    }

    fn refused_ports(&self) -> Vec<RefusedPort> {
        // A port that a container of before cannot have back is no service's.
        let rows = &self.edge.balancer.rows;
        let wanted = self.edge.refused.iter().filter(|(frontend, _)| rows.behind(frontend).is_some());
        let causes = wanted
            .filter_map(|(frontend, refusal)| Some((Published::of_frontend(frontend)?, &refusal.cause)));
        // Of both families the same is said.
        let causes: BTreeMap<Published, &Cause> = causes.collect();
        let ports =
            causes.into_iter().map(|(published, cause)| RefusedPort { published, cause: cause.clone() });
        ports.take(REFUSED_MAX).collect()
    }
}
