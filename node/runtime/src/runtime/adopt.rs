//! Taking over the containers of the daemon before.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Weak},
};

use covey_state::time::Stamp;

use super::{Inner, Life, OpenError, Slot};
use crate::{
    container::{ContainerId, ContainerState, NetworkMode, Record, Versioned},
    health,
    layout::{self, ExitRecord, FORMAT, Process},
    network::{KEPT_MAX, Remembered},
    shim, sys,
};

/// Fills the table from the disk, watches what runs, and removes what belongs to nobody.
pub(super) async fn adopt(inner: &Arc<Inner>) -> Result<(), OpenError> {
    let (mut running, mut orphans) = (vec![], vec![]);
    for record in records(inner)? {
        let life = Life::of(&record);
        let slot = Slot::new(record, life);
        let id = slot.record.id.clone();
        if let Err(error) = inner.config.images.hold(&slot.record.image.id, id.as_str()).await {
            tracing::warn!(%error, container = %id, "the image of a container is gone");
        }
        {
            let mut table = inner.table();
            table.names.insert(slot.record.name.clone(), id.clone());
            table.slots.insert(id, slot.clone());
        }
        match resume(inner, &slot) {
            Found::Running(shim) => running.push((slot, shim)),
            Found::Resting => {}
            Found::Orphan => orphans.push(slot),
        }
    }
    // All of them first: whatever is asked of the network after this, it knows what is taken.
    for (slot, shim) in &running {
        hand_over(inner, slot, shim.as_fd());
    }
    for (slot, shim) in running {
        health::watch(inner, &slot);
        watch(inner, &slot, shim);
    }
    sweep(inner);
    for slot in orphans {
        let _gate = slot.gate.lock().await;
        inner.bury(&slot).await;
    }
    if let Err(error) = inner.config.images.sweep().await {
        tracing::warn!(%error, "cannot remove unused images");
    }
    Ok(())
}

fn records(inner: &Inner) -> Result<Vec<Record>, OpenError> {
    let root = inner.layout.containers();
    let entries = fs::read_dir(root).map_err(OpenError::io(root.display().to_string()))?;
    let mut records = vec![];
    for entry in entries {
        let path = entry.map_err(OpenError::io(root.display().to_string()))?.path();
        let known = path.file_name().and_then(|n| n.to_str()).and_then(ContainerId::parse);
        let Some(id) = known else { continue };
        let file = path.join(layout::RECORD);
        match fs::read(&file) {
            Ok(text) if !text.is_empty() => {
                let corrupt = |source| OpenError::Corrupt { path: file.clone(), source };
                let Versioned { format } = serde_json::from_slice(&text).map_err(corrupt)?;
                if format > FORMAT {
                    return Err(OpenError::Newer { path, format, known: FORMAT });
                }
                records.push(serde_json::from_slice(&text).map_err(corrupt)?);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io(file.display().to_string())(error));
            }
            // Its making or its removal was interrupted; empty: by a power cut.
            _ => {
                clear(inner, &id).map_err(OpenError::io(path.display().to_string()))?;
            }
        }
    }
    Ok(records)
}

/// How the daemon before left a container.
enum Found {
    /// With this shim.
    Running(OwnedFd),
    /// Never started, or ended and buried.
    Resting,
    /// Ended, and to be buried.
    Orphan,
}

/// Sets what a container's files say about it.
fn resume(inner: &Inner, slot: &Slot) -> Found {
    let id = &slot.record.id;
    let (data, exec) = (inner.layout.data(id), inner.layout.exec(id));
    let Some((started, _)) = started(&data) else { return Found::Resting };
    slot.life.send_modify(|life| life.started_at = Some(started));
    let shim = Process::read(&exec.join(layout::SHIM)).and_then(Process::open);
    let init = Process::read(&exec.join(layout::INIT));
    if let (Some(shim), None) = (&shim, &init) {
        // The daemon before died in the middle of a start: nobody knows how far it came.
        let _ = sys::pidfd_send_signal(shim.as_fd(), libc::SIGKILL);
    }
    if let (Some(shim), Some(init)) = (shim, init) {
        let remembered = Remembered::read(&exec);
        slot.life.send_modify(|life| {
            life.state = ContainerState::Running;
            life.pid = init.pid.unsigned_abs();
            life.addresses = remembered.addresses;
            life.ports = remembered.ports;
        });
        return Found::Running(shim);
    }
    match ExitRecord::read(&data) {
        Some(exit) if !exec.exists() && !slot.record.auto_remove => {
            slot.life.send_modify(|life| life.state = ContainerState::Exited(exit.into()));
            Found::Resting
        }
        _ => Found::Orphan,
    }
}

/// Tells the network of a container that runs, and gives it the sockets back that the container's shim held.
fn hand_over(inner: &Inner, slot: &Slot, shim: BorrowedFd<'_>) {
    let (NetworkMode::Edge, Some(network)) = (&slot.record.network, &inner.config.network) else { return };
    let Remembered { addresses, ports, kept } = Remembered::read(&inner.layout.exec(&slot.record.id));
    let places = (shim::HELD_FROM..).take(kept.min(KEPT_MAX));
    let kept = places.map(|place| sys::pidfd_getfd(shim, place)).collect::<io::Result<Vec<_>>>();
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, container = %slot.record.id, "the sockets of a container's network are lost");
        vec![]
    });
    network.adopted(slot.record.id.as_str(), &slot.life.borrow().wiring, &addresses, &ports, kept);
}

/// When a container was started, and in which run of the machine.
pub(crate) fn started(data: &Path) -> Option<(Stamp, String)> {
    let text = fs::read_to_string(data.join(layout::STARTED)).ok()?;
    let (at, boot) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Some((Stamp(at.parse().unwrap_or_default()), boot.to_owned()))
}

/// Removes what containers left that are not in the table. Only what our own directories name: another daemon may have
/// its containers in the same cgroup.
fn sweep(inner: &Inner) {
    for name in inner.layout.running() {
        let Some(id) = ContainerId::parse(&name) else { continue };
        if !inner.table().slots.contains_key(&id)
            && let Err(error) = clear(inner, &id)
        {
            tracing::warn!(%error, container = %id, "cannot remove what a container left");
        }
    }
}

/// Removes what there is of a container that has no record.
fn clear(inner: &Inner, id: &ContainerId) -> io::Result<()> {
    inner.cgroup(id).remove()?;
    layout::remove_tree(&inner.layout.exec(id))?;
    layout::remove_tree(&inner.layout.data(id))
}

/// Buries the container when its shim ends.
pub(crate) fn watch(inner: &Arc<Inner>, slot: &Arc<Slot>, shim: OwnedFd) {
    let (open, weak, slot) = (inner.open.clone(), Arc::downgrade(inner), slot.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = open.cancelled() => return,
            () = gone(&shim) => {}
        }
        // Our own child wants to be collected; that of a daemon before was given to somebody else.
        let _ = sys::reap(shim.as_fd());
        if let Some(inner) = Weak::upgrade(&weak) {
            let _gate = slot.gate.lock().await;
            inner.bury(&slot).await;
        }
    });
}

/// Waits until the process behind `pidfd` has ended.
pub(crate) async fn gone(pidfd: &OwnedFd) {
    let Ok(copy) = pidfd.try_clone() else { return };
    match sys::watched(copy) {
        Ok(watched) => drop(watched.readable().await),
        Err(error) => tracing::error!(%error, "cannot watch a process"),
    }
}
