//! What a node knows of its work over a restart, as it is written: each spec once, however many tasks run it.

use std::{collections::BTreeMap, sync::Arc};

use covey_state::{
    Id,
    assignment::{Assignment, Generation},
    service::TaskSpec,
};
use serde::{Deserialize, Serialize};

/// What a node knows of its work over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Remembered {
    /// The last set.
    pub generation: Generation,
    /// Its tasks.
    pub tasks: Vec<Assignment>,
}

/// What is written of it.
#[derive(Serialize, Deserialize)]
struct Written {
    generation: Generation,
    specs: Vec<Arc<TaskSpec>>,
    /// Each with an empty spec in place of its own, and the place of that among the specs.
    tasks: Vec<(Assignment, usize)>,
}

impl From<Remembered> for Written {
    fn from(remembered: Remembered) -> Self {
        let nothing = Arc::new(TaskSpec::default());
        let mut specs: Vec<Arc<TaskSpec>> = Vec::new();
        let mut of_service: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        let mut tasks = Vec::with_capacity(remembered.tasks.len());
        for mut assignment in remembered.tasks {
            let spec = std::mem::replace(&mut assignment.spec, nothing.clone());
            let known = of_service.entry(assignment.service).or_default();
            let place = known.iter().copied().find(|place| specs[*place] == spec).unwrap_or_else(|| {
                known.push(specs.len());
                specs.push(spec);
                specs.len() - 1
            });
            tasks.push((assignment, place));
        }
        Self { generation: remembered.generation, specs, tasks }
    }
}

/// What is written lacks what a task runs.
#[derive(Debug, thiserror::Error)]
#[error("no spec for task {0}")]
struct NoSpec(Id);

impl TryFrom<Written> for Remembered {
    type Error = NoSpec;

    fn try_from(written: Written) -> Result<Self, NoSpec> {
        let Written { generation, specs, tasks } = written;
        let whole = |(assignment, place): (Assignment, usize)| {
            let spec = specs.get(place).ok_or(NoSpec(assignment.task))?.clone();
            Ok(Assignment { spec, ..assignment })
        };
        Ok(Self { generation, tasks: tasks.into_iter().map(whole).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use covey_state::task::DesiredState;

    use super::*;

    fn assignment(task: u128, service: u128, env: &str) -> Assignment {
        let mut spec = TaskSpec::default();
        spec.container.env = vec![env.to_owned()];
        Assignment {
            task: Id::new(task),
            service: Id::new(service),
            service_name: "web".into(),
            slot: 1,
            spec: Arc::new(spec),
            desired: DesiredState::Running,
            edge: true,
            networks: Vec::new(),
            ports: Vec::new(),
            exposure: Arc::default(),
        }
    }

    #[test]
    fn each_spec_is_written_once_and_each_task_has_its_own_again() {
        let tasks: Vec<_> = [(1, 1, "A=1"), (2, 1, "A=2"), (3, 1, "A=1"), (4, 2, "A=1")]
            .map(|(task, service, env)| assignment(task, service, env))
            .into();
        let remembered = Remembered { generation: Generation { term: 1, sequence: 2 }, tasks };
        let written = Written::from(remembered.clone());
        assert_eq!(written.specs.len(), 3);
        assert_eq!(Remembered::try_from(written).unwrap(), remembered);
    }

    #[test]
    fn a_task_without_a_spec_is_an_error() {
        let remembered = Remembered { tasks: vec![assignment(1, 1, "A=1")], ..Remembered::default() };
        let damaged = Written { specs: Vec::new(), ..remembered.into() };
        assert_eq!(
            Remembered::try_from(damaged).unwrap_err().to_string(),
            format!("no spec for task {}", Id::new(1))
        );
    }
}
