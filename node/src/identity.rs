//! What makes this machine a member, on disk: its key, its certificate, the CA, and a few lines beside them.
//!
//! `<data>/swarm/node.key`, `node.crt`, `ca.crt` (PEM) and `member.json`. Without `member.json` the machine is in no
//! cluster: it is written last when joining, and says so first when leaving. `nodes` says who the other nodes are: their
//! rows are checked by it until a leader has told.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use covey_crypto::{
    certificate::{self, CaCertificate},
    identity::{NodeKey, PeerIdentity},
};
use covey_gossip_quic as quic;
use covey_state::{
    Id,
    cluster::RaftSpec,
    node::{EdgeBlock, Role},
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::{disk, protocol::Roster, translate};

/// Bytes of each of these files, at most.
const FILE_MAX: u64 = 256 * 1024;
/// Bytes of `nodes`, at most: it names as many nodes as gossip knows, and those that were removed.
const NODES_MAX: usize = 16 << 20;
/// The form of `member.json`.
const FORMAT: u32 = 1;

/// The few lines beside key and certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// The form of these notes.
    format: u32,
    /// Where the control socket is bound.
    pub listen: SocketAddr,
    /// Where others reach this node.
    pub advertise: SocketAddr,
    /// SWIM's incarnation: raised and fsynced before this node speaks under it.
    pub incarnation: u64,
    /// Managers known last, to find the cluster again.
    pub managers: Vec<(Id, SocketAddr)>,
    /// Where packets of networks come in, if not there.
    #[serde(default)]
    pub data_path: Option<IpAddr>,
    /// Addresses of this node's containers, once a leader has told.
    #[serde(default)]
    pub edge: Option<EdgeBlock>,
    /// Consensus timing of the cluster, on a manager.
    #[serde(default)]
    pub raft: Option<RaftSpec>,
    /// The node is on its way out: what is left of its membership is removed, whatever happens.
    #[serde(default)]
    pub leaving: bool,
}

/// What can be read of notes of any version.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Notes {
    /// The notes of a node that has just become a member.
    pub fn new(
        listen: SocketAddr,
        advertise: SocketAddr,
        data_path: Option<IpAddr>,
        managers: Vec<(Id, SocketAddr)>,
    ) -> Self {
        Self {
            format: FORMAT,
            listen,
            advertise,
            incarnation: 0,
            managers,
            data_path,
            edge: None,
            raft: None,
            leaving: false,
        }
    }
}

/// Who this node is.
#[derive(Clone)]
pub struct Identity {
    /// Its key, kept for ever.
    pub key: NodeKey,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// The authority that issued it.
    pub ca: CaCertificate,
    /// What the certificate says.
    pub peer: PeerIdentity,
}

impl Identity {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The certificate is not of this authority, or not for this key.
    pub fn new(key: NodeKey, certificate: CertificateDer<'static>, ca: CaCertificate) -> Result<Self> {
        let peer = ca.verify(&certificate).context("this node's certificate")?;
        if peer.public_key != key.public() {
            bail!("this node's certificate is for another key");
        }
        Ok(Self { key, certificate, ca, peer })
    }

    /// As the control socket wants it.
    pub fn of_quic(&self) -> quic::Identity {
        quic::Identity { key: self.key.clone(), certificate: self.certificate.clone(), ca: self.ca.clone() }
    }

    /// The role that the certificate says.
    pub fn role(&self) -> Role {
        translate::role(self.peer.role)
    }
}

/// The folder where the identity is kept.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder below this data root.
    pub fn below(data_root: &Path) -> Self {
        Self(data_root.join("swarm"))
    }

    /// Where the managers' log is kept.
    pub fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    /// Where the agent's last assignment set is kept.
    pub fn assignments(&self) -> PathBuf {
        self.0.join("assignments")
    }

    /// The identity and the notes; `None` where this machine is in no cluster.
    ///
    /// # Errors
    /// Something of it is damaged, or of a newer version.
    pub fn load(&self) -> Result<Option<(Identity, Notes)>> {
        let Some(notes) = disk::read(&self.0.join("member.json"), FILE_MAX)? else { return Ok(None) };
        let damaged = || format!("{} is damaged", self.0.join("member.json").display());
        let Format { format } = serde_json::from_slice(&notes).with_context(damaged)?;
        if format > FORMAT {
            bail!(
                "{} has format {}, this version of Covey reads {FORMAT}: start the newer version again",
                self.0.display(),
                format
            );
        }
        let notes: Notes = serde_json::from_slice(&notes).with_context(damaged)?;
        let key = NodeKey::from_pem(&self.text("node.key")?).context("node.key")?;
        let certificate = certificate::from_pem(&self.text("node.crt")?).context("node.crt")?;
        let ca = CaCertificate::from_pem(&self.text("ca.crt")?).context("ca.crt")?;
        Ok(Some((Identity::new(key, certificate, ca)?, notes)))
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        let bytes = disk::read(&path, FILE_MAX)?.with_context(|| format!("{} is missing", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes key and certificates; the notes follow by [`Folder::save_notes`].
    ///
    /// # Errors
    /// The machine is in no other state than before.
    pub fn save(&self, identity: &Identity) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("cannot make {}", self.0.display()))?;
        disk::write(&self.0.join("node.key"), identity.key.to_pem()?.as_bytes())?;
        disk::write(&self.0.join("ca.crt"), identity.ca.to_pem().as_bytes())?;
        disk::write(&self.0.join("node.crt"), certificate::to_pem(&identity.certificate).as_bytes())
    }

    /// Writes the notes.
    ///
    /// # Errors
    /// The old ones are still there.
    pub fn save_notes(&self, notes: &Notes) -> Result<()> {
        disk::write(&self.0.join("member.json"), &serde_json::to_vec_pretty(notes)?)
    }

    /// All nodes as they were noted last. `None` where they were not, or where the note cannot be read: a leader tells
    /// them anew, and nothing else builds on it.
    pub fn nodes(&self) -> Option<Roster> {
        let path = self.0.join("nodes");
        let read = || -> Result<Option<Roster>> {
            let bytes = disk::read(&path, NODES_MAX as u64)?;
            bytes.map(|bytes| Ok(covey_wire::decode::<_, NODES_MAX>(&bytes)?)).transpose()
        };
        read().unwrap_or_else(|error| {
            let error = format!("{:#}", error.context(format!("{} is left out", path.display())));
            tracing::warn!(error, "the other nodes are not known before a leader tells");
            None
        })
    }

    /// Notes all nodes.
    ///
    /// # Errors
    /// The old ones are still there.
    pub fn save_nodes(&self, roster: &Roster) -> Result<()> {
        disk::write(&self.0.join("nodes"), &covey_wire::encode(roster)?)
    }

    /// Forgets the cluster.
    ///
    /// # Errors
    /// Something could not be removed; the machine is no member all the same once the notes are gone.
    pub fn wipe(&self) -> Result<()> {
        for result in [fs::remove_file(self.0.join("member.json")), fs::remove_dir_all(&self.0)] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", self.0.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NET-29
    #[test]
    fn nodes_are_read_as_they_were_noted_and_left_out_where_they_are_damaged() {
        let data_root = tempfile::tempdir().unwrap();
        let folder = Folder::below(data_root.path());
        assert_eq!(folder.nodes(), None);
        let roster = Roster { full: true, removed: vec![Id::new(3)], ..Roster::default() };
        assert!(folder.save_nodes(&roster).is_err(), "there is no such folder");
        fs::create_dir(data_root.path().join("swarm")).unwrap();
        folder.save_nodes(&roster).unwrap();
        assert_eq!(folder.nodes(), Some(roster.clone()));

        let file = data_root.path().join("swarm/nodes");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(folder.nodes(), None, "it ends early");
        fs::File::create(&file).unwrap().set_len(NODES_MAX as u64 + 1).unwrap();
        assert_eq!(folder.nodes(), None, "it is too long");
        folder.save_nodes(&roster).unwrap();
        assert_eq!(folder.nodes(), Some(roster));
    }
}
