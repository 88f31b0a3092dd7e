//! The orchestrator: from specs and outcomes to tasks.

mod evict;
mod outcome;
mod promote;
mod replicated;
pub(crate) mod restart;
mod update;

use std::collections::BTreeSet;

use covey_state::Id;

use crate::draft::Draft;

/// Decides which tasks there are, and what is wanted of each.
pub(crate) fn plan(draft: &mut Draft<'_>, services: &BTreeSet<Id>) {
    for id in services {
        outcome::plan(draft, *id);
        evict::plan(draft, *id);
    }
    for id in services {
        // The tasks of a removed service are the reaper's.
        let Some(service) = draft.store.service(*id).cloned() else { continue };
        replicated::plan(draft, &service);
        update::plan(draft, &service);
        promote::plan(draft, *id);
    }
}
