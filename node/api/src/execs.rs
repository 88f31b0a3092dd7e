//! Processes that clients made in containers: Docker makes, starts and asks after one by one request each.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{engine::ExecRequest, failure::Failure};

/// Processes that are remembered; beyond it the first that has ended is forgotten, or the oldest never started.
const EXECS_MAX: usize = 1024;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub request: ExecRequest,
    /// The client wants to see it.
    pub stdout: bool,
    /// The client wants to see it.
    pub stderr: bool,
    pub state: ExecState,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecState {
    Created,
    /// Pid 0 while it is being started.
    Running {
        pid: u32,
    },
    Ended {
        code: i32,
    },
}

/// All of them, by id.
#[derive(Default)]
pub struct Execs(Mutex<Table>);

#[derive(Default)]
struct Table {
    execs: BTreeMap<String, (u64, Exec)>,
    /// Counts additions, so that the oldest can be found.
    added: u64,
}

impl Execs {
    /// Remembers a new one.
    pub fn add(&self, id: String, exec: Exec) -> Result<(), Failure> {
        let mut table = self.table();
        if table.execs.len() >= EXECS_MAX {
            let idle =
                table.execs.iter().filter(|(_, (_, exec))| !matches!(exec.state, ExecState::Running { .. }));
            let oldest = idle.min_by_key(|(_, (added, exec))| (exec.state == ExecState::Created, *added));
            let oldest = oldest.map(|(id, _)| id.clone());
            let oldest =
                oldest.ok_or_else(|| Failure::unavailable(format!("{EXECS_MAX} processes run already")))?;
            table.execs.remove(&oldest);
        }
        table.added += 1;
        let added = table.added;
        table.execs.insert(id, (added, exec));
        Ok(())
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Result<Exec, Failure> {
        self.table().execs.get(id).map(|(_, exec)| exec.clone()).ok_or_else(|| missing(id))
    }

    /// Takes the right to start it, which only one client gets.
    pub fn claim(&self, id: &str) -> Result<Exec, Failure> {
        let mut table = self.table();
        let (_, exec) = table.execs.get_mut(id).ok_or_else(|| missing(id))?;
        match exec.state {
            ExecState::Created => {
                exec.state = ExecState::Running { pid: 0 };
                Ok(exec.clone())
            }
            ExecState::Running { .. } => {
                Err(Failure::conflict(format!("Error: Exec command {id} is already running")))
            }
            ExecState::Ended { .. } => {
                Err(Failure::conflict(format!("Error: Exec command {id} has already run")))
            }
        }
    }

    /// It runs as `pid`.
    pub fn started(&self, id: &str, pid: u32) {
        self.set(id, ExecState::Running { pid });
    }

    /// It has ended.
    pub fn ended(&self, id: &str, code: i32) {
        self.set(id, ExecState::Ended { code });
    }

    fn set(&self, id: &str, state: ExecState) {
        if let Some((_, exec)) = self.table().execs.get_mut(id) {
            exec.state = state;
        }
    }

    /// Nothing that holds the lock can leave it half changed.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(id: &str) -> Failure {
    Failure::not_found(format!("No such exec instance: {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec() -> Exec {
        Exec { request: ExecRequest::default(), stdout: true, stderr: true, state: ExecState::Created }
    }

    #[test]
    fn a_process_is_started_once() {
        let execs = Execs::default();
        execs.add("a".into(), exec()).unwrap();
        assert!(execs.claim("a").is_ok());
        assert!(execs.claim("a").is_err_and(|failure| failure.message.ends_with("is already running")));
        execs.ended("a", 3);
        assert_eq!(execs.get("a").unwrap().state, ExecState::Ended { code: 3 });
        assert!(execs.claim("a").is_err_and(|failure| failure.message.ends_with("has already run")));
        assert!(execs.claim("b").is_err());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_ended_processes_first() {
        let execs = Execs::default();
        for n in 0..EXECS_MAX {
            execs.add(n.to_string(), exec()).unwrap();
        }
        execs.ended("7", 0);
        execs.add("one more".into(), exec()).unwrap();
        assert!(execs.get("7").is_err() && execs.get("0").is_ok());
        execs.add("another".into(), exec()).unwrap();
        assert!(execs.get("0").is_err());
        for n in 0..EXECS_MAX {
            execs.started(&n.to_string(), 1);
        }
        execs.started("one more", 1);
        execs.started("another", 1);
        assert!(execs.add("too many".into(), exec()).is_err());
    }
}
