//! What the tests of the whole share: the workspace and what cargo says of it, and clusters of real daemons.
#![allow(
    clippy::disallowed_methods,
    reason = "door: tests run cargo, labs and clients, and wait by the clock"
)]
#![allow(clippy::disallowed_types, reason = "door: labs are counted across the threads of a test program")]

pub mod capture;
pub mod dns;
pub mod image;
pub mod lab;
pub mod relay;
pub mod reply;
pub mod residue;
pub mod space;
pub mod wait;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The top of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// What `cargo metadata` prints, with or without the packages of others.
///
/// # Panics
/// When cargo does not answer: no test can go on without it.
pub fn metadata(with_dependencies: bool) -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    if !with_dependencies {
        cargo.arg("--no-deps");
    }
    let output = cargo.current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Every file of our own with this ending, outside `target`.
pub fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the workspace can be read").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with(".git") {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
