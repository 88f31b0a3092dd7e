//! Giving a container other networks than it was made with, while it runs or not.

use std::{fs, io, net::IpAddr, path::Path, sync::Arc};

use covey_state::network::Wiring;

use crate::{
    Runtime,
    container::{ContainerId, ContainerState, NetworkMode, Record},
    etc,
    event::Action,
    layout,
    name::LookupError,
    network::{Attachment, Remembered},
    runtime::{Inner, Slot, blocking, to_the_end},
};

/// A container has the networks that it had.
#[derive(Debug, thiserror::Error)]
pub enum RewireError {
    /// Which container?
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its network could not be changed.
    #[error("{0}")]
    Network(String),
    /// The change cannot be written down.
    #[error("container {id}")]
    Io {
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
}

impl Runtime {
    /// Has a container of [`NetworkMode::Edge`] wired by what `change` makes of its wiring: now where it runs, and at each
    /// start. What `change` refuses is refused.
    ///
    /// # Errors
    /// It has the networks that it had.
    pub async fn rewire(
        &self,
        container: &str,
        change: impl FnOnce(&Wiring) -> Result<Wiring, String> + Send + 'static,
    ) -> Result<(), RewireError> {
        let slot = self.inner.find(container)?;
        // A caller that goes away must not leave a container behind of which nobody knows how it is wired.
        to_the_end(rewire(self.inner.clone(), slot, change)).await
    }
}

async fn rewire(
    inner: Arc<Inner>,
    slot: Arc<Slot>,
    change: impl FnOnce(&Wiring) -> Result<Wiring, String>,
) -> Result<(), RewireError> {
    // Nobody starts or buries it while we hold this.
    let _gate = slot.gate.lock().await;
    let life = slot.life.borrow().clone();
    if life.removed {
        return Err(LookupError::NotFound(slot.record.id.to_string()).into());
    }
    let wiring = change(&life.wiring).map_err(RewireError::Network)?;
    let attachment = match life.state {
        ContainerState::Running => Some(wire(&inner, &slot.record, &wiring).await?),
        _ => None,
    };
    let before = life.addresses.first().copied();
    if let Err(source) = note(&inner, &slot.record, &wiring, before, attachment.clone()).await {
        if attachment.is_some()
            && let Err(error) = wire(&inner, &slot.record, &life.wiring).await
        {
            tracing::warn!(%error, container = %slot.record.id, "a change of its networks is not all undone");
        }
        return Err(RewireError::Io { id: slot.record.id.clone(), source });
    }
    slot.life.send_modify(|life| {
        life.wiring = wiring;
        if let Some(Attachment { addresses, ports, .. }) = attachment {
            life.addresses = addresses;
            life.ports = ports;
        }
    });
    inner.tell(&slot.record, Action::Rewire);
    Ok(())
}

async fn wire(inner: &Inner, record: &Record, wiring: &Wiring) -> Result<Attachment, RewireError> {
    let (NetworkMode::Edge, Some(network)) = (&record.network, &inner.config.network) else {
        return Err(RewireError::Network("it has no network of its own".to_owned()));
    };
    network.rewire(record.id.as_str(), record.hostname(), wiring).await.map_err(RewireError::Network)
}

/// Writes down what the container has, for its next start and for the daemon after this one. Its first address was
/// `before`.
async fn note(
    inner: &Inner,
    record: &Record,
    wiring: &Wiring,
    before: Option<IpAddr>,
    attachment: Option<Attachment>,
) -> io::Result<()> {
    let record = Record { wiring: wiring.clone(), ..record.clone() };
    let (data, exec) = (inner.layout.data(&record.id), inner.layout.exec(&record.id));
    blocking(move || {
        layout::replace(&data, layout::RECORD, &serde_json::to_vec(&record)?, record.durable())?;
        match attachment {
            Some(attachment) => {
                Remembered::rewrite(&attachment, &exec)?;
                refresh_hosts(&exec, record.hostname(), before, attachment.addresses.first().copied())?;
                refresh_resolv_conf(&exec, &attachment, &record)
            }
            None => Ok(()),
        }
    })
    .await
}

fn refresh_resolv_conf(exec: &Path, attachment: &Attachment, record: &Record) -> io::Result<()> {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let text = etc::resolv_conf(attachment, &record.spec.naming, &host, &record.network);
    refresh(&exec.join("resolv.conf"), |_| text)
}

/// The container's own line in `/etc/hosts` goes from one address to another; what it wrote there itself stays.
fn refresh_hosts(exec: &Path, hostname: &str, before: Option<IpAddr>, now: Option<IpAddr>) -> io::Result<()> {
    if before == now {
        return Ok(());
    }
    let line = |address: IpAddr| etc::hosts_line(address, hostname);
    let (gone, new) = (before.map(line), now.map(line));
    refresh(&exec.join("hosts"), |text| {
        let stays = text.lines().filter(|line| Some(*line) != gone.as_deref());
        stays.chain(new.as_deref()).map(|line| line.to_owned() + "\n").collect()
    })
}

/// The file is mounted into the container: it is written in place, and only where it changes.
fn refresh(file: &Path, change: impl FnOnce(&str) -> String) -> io::Result<()> {
    let before = fs::read_to_string(file).unwrap_or_default();
    let text = change(&before);
    if before == text { Ok(()) } else { fs::write(file, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NET-26
    #[test]
    fn a_containers_own_line_follows_its_first_address_and_what_it_wrote_stays() {
        let exec = tempfile::tempdir().unwrap();
        let file = exec.path().join("hosts");
        let [a, b] = [[10, 0, 0, 5], [10, 1, 0, 5]].map(|address| Some(IpAddr::from(address)));
        let attachment = Attachment { addresses: a.into_iter().collect(), ..Attachment::default() };
        let written = etc::hosts("box", &attachment, &Default::default()) + "10.9.9.9\tmine";
        fs::write(&file, &written).unwrap();
        let has = |line: &str| fs::read_to_string(&file).unwrap().lines().any(|found| found == line);
        refresh_hosts(exec.path(), "box", a, a).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), written);
        refresh_hosts(exec.path(), "box", a, b).unwrap();
        assert!(has("10.1.0.5\tbox") && !has("10.0.0.5\tbox") && has("10.9.9.9\tmine"));
        refresh_hosts(exec.path(), "box", b, None).unwrap();
        assert!(!has("10.1.0.5\tbox") && has("10.9.9.9\tmine") && has("127.0.0.1\tlocalhost"));
    }
}
