//! What the tests are made of: stores, tars, archives and layouts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use covey_runtime::image::{Digest, ImageStore, Progress, ProgressSink};
use serde_json::{Value, json};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A store in a directory of its own.
pub struct Fixture {
    pub dir: TempDir,
    pub store: ImageStore,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        Self { dir, store }
    }

    /// Where the store lives.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory that no image may reach.
    pub fn outside(&self) -> PathBuf {
        let outside = self.dir.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
        outside
    }

    /// Imports a tar and returns the directory of its layer.
    pub async fn import(&self, tar: Vec<u8>) -> Result<PathBuf, String> {
        let id = self.store.import(&tar[..], None, &[], "").await.map_err(|error| chain(&error))?;
        Ok(self.lower(&id.to_string()).await.remove(0))
    }

    /// The directories of an image's layers, topmost first.
    pub async fn lower(&self, image: &str) -> Vec<PathBuf> {
        let rootfs = self.store.rootfs(image).await.unwrap();
        rootfs.lower.iter().map(|name| fs::canonicalize(rootfs.layers_dir.join(name)).unwrap()).collect()
    }

    /// What lies about unfinished.
    pub fn leftovers(&self) -> Vec<String> {
        names(&self.root().join("tmp"))
    }

    /// The layers on disk.
    pub fn layer_dirs(&self) -> Vec<String> {
        names(&self.root().join("layers")).into_iter().filter(|name| name.len() == 64).collect()
    }
}

pub fn open(dir: &Path) -> Result<ImageStore, covey_runtime::image::StoreError> {
    ImageStore::open(&dir.join("data"), BTreeSet::new())
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An error with its sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Progress that nobody looks at.
pub fn silent() -> ProgressSink {
    Arc::new(|_| {})
}

/// Progress that can be looked at: `id: status`.
#[derive(Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<Progress>>>);

impl Recorded {
    pub fn sink(&self) -> ProgressSink {
        let list = self.0.clone();
        Arc::new(move |progress| list.lock().unwrap().push(progress))
    }

    /// The lines without bars.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let line =
            |p: &Progress| if p.id.is_empty() { p.status.clone() } else { format!("{}: {}", p.id, p.status) };
        lines.iter().filter(|progress| progress.bytes.is_none()).map(line).collect()
    }

    /// How many lines end so.
    pub fn count(&self, status: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|progress| progress.status == status).count()
    }
}

/// Writes tars, also such as no honest tool writes.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", mode, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    /// The next entry carries these extended attributes.
    pub fn xattrs(self, xattrs: &[(&str, &str)]) -> Self {
        let record = |(name, value): &(&str, &str)| {
            let body = format!(" SCHILY.xattr.{name}={value}\n");
            let length = (1..).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap();
            format!("{}{body}", body.len() + length)
        };
        let content: String = xattrs.iter().map(record).collect();
        self.entry(EntryType::XHeader, "pax", "", 0o644, content.as_bytes())
    }

    pub fn entry(mut self, kind: EntryType, path: &str, target: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = header(kind, path, target, mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header of the test's own making, without content.
    pub fn header(mut self, mut header: Header) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A header whose names are written as they are: the tar crate would refuse some of them.
pub fn header(kind: EntryType, path: &str, target: &str, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    assert!(path.len() < 100 && target.len() < 100, "{path} {target}");
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000);
    header.set_size(0);
    header
}

/// A configuration of an image of these layers.
pub fn config(layers: &[Vec<u8>], config: Value) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({ "architecture": architecture(), "os": "linux", "created": "2026-01-02T03:04:05Z", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids } })
    .to_string()
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// An archive as `docker save` writes it, with its table at the end and a link for each layer.
pub fn docker_archive(layers: &[Vec<u8>], settings: Value, tags: &[&str]) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        tar = tar.symlink(&format!("{index}/layer.tar"), &format!("../{index}.tar")).entry(
            EntryType::Regular,
            &format!("{index}.tar"),
            "",
            0o644,
            layer,
        );
        paths.push(format!("{index}/layer.tar"));
    }
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": paths }]);
    tar.file("config.json", &config(layers, settings)).file("manifest.json", &manifest.to_string()).end()
}

/// Runs a tool that must succeed; returns what it says.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The tools are there; if not, the test says so and passes.
pub fn have(tools: &[&str]) -> bool {
    let is_missing = |tool: &&&str| {
        let path = std::env::var("PATH").unwrap_or_default();
        !path.split(':').any(|dir| Path::new(dir).join(tool).exists())
    };
    let missing: Vec<_> = tools.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        eprintln!(
            "SKIPPED: {missing:?} not installed (Debian packages skopeo, umoci, docker-registry, busybox-static)"
        );
    }
    missing.is_empty()
}

/// A layout of two layers made by umoci: busybox, then a change with a removed file. The image's tag is `box`.
pub fn umoci_layout(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let (path, bundle) = (layout.to_str().unwrap().to_owned(), dir.join("bundle"));
    let image = format!("{path}:box");
    run("umoci", &["init", "--layout", &path]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", rootfs.join("bin/sh")).unwrap();
    fs::write(rootfs.join("removed"), "by the second layer").unwrap();
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, bundle.to_str().unwrap()]);
    fs::remove_file(rootfs.join("removed")).unwrap();
    fs::write(rootfs.join("added"), "by the second layer").unwrap();
    run("umoci", &["repack", "--image", &image, bundle.to_str().unwrap()]);
    let settings = ["--config.cmd", "sh", "--config.env", "WHO=box", "--config.label", "a=b"];
    run("umoci", &[&["config", "--image", &image], &settings[..]].concat());
    layout
}
