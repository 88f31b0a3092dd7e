//! The map as a test: who may know whom, which files open with what, whose licences come in.

use std::{collections::BTreeMap, fs};

use covey_integration::{files, metadata, workspace};
use serde_json::Value;

/// Our packages: what each is, and which of ours it may depend on (`ARCHITECTURE.md`, "Who may know whom").
/// Every package may use the words of the wire; the node and the tests may use everything.
const MAP: &[(&str, Kind, &[&str])] = &[
    ("covey-wire", Kind::Pure, &[]),
    ("covey-crypto", Kind::Pure, &[]),
    ("covey-gossip", Kind::Pure, &[]),
    ("covey-overlay", Kind::Pure, &[]),
    ("covey-mesh", Kind::Pure, &[]),
    ("covey-gossip-quic", Kind::Door, &["covey-gossip", "covey-crypto"]),
    ("covey-overlay-netlink", Kind::Door, &["covey-overlay"]),
    ("covey-mesh-netlink", Kind::Door, &["covey-mesh"]),
    ("covey-mesh-dns", Kind::Door, &["covey-mesh"]),
    ("covey-state", Kind::Pure, &[]),
    ("covey-manager", Kind::Pure, &["covey-state"]),
    ("covey-agent", Kind::Pure, &["covey-state"]),
    ("covey-raft", Kind::Door, &["covey-state", "covey-crypto"]),
    ("covey-runtime", Kind::Door, &["covey-agent", "covey-state"]),
    ("covey-api", Kind::Door, &["covey-state"]),
    ("covey", Kind::All, &[]),
    ("covey-examples", Kind::All, &[]),
    ("covey-integration", Kind::All, &[]),
];

/// What a pure crate may not have in its manifest: each is an effect, or brings one.
const EFFECTS: &[&str] = &[
    "tokio",
    "quinn",
    "nix",
    "libc",
    "rustls",
    "hyper",
    "axum",
    "netlink-sys",
    "redb",
    "tracing-subscriber",
];

/// Crates that must not come in at all, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("serde_yaml", "dead"),
    ("tokio-tar", "dead and vulnerable"),
    ("rustables", "GPL"),
];

/// Licences that may be linked into the product.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "BSL-1.0",
    "Unlicense",
    "0BSD",
    "MIT-0",
    "CDLA-Permissive-2.0",
    "OpenSSL",
];
/// Weak copyleft, file by file: linked, never edited.
const LINKED_ONLY: &[&str] = &["foca"];

const LINES_MAX: usize = 600;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pure,
    Door,
    All,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Direct dependencies of each of our packages, those of tests left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata(false);
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|d| d["kind"].is_null());
            (text(package, "name").to_owned(), normal.map(|d| text(d, "name").to_owned()).collect())
        })
        .collect()
}

#[test]
fn packages_know_only_whom_the_map_allows() {
    let dependencies = dependencies();
    let known: Vec<&str> = MAP.iter().map(|(name, ..)| *name).collect();
    for (package, wanted) in &dependencies {
        let Some((_, kind, allowed)) = MAP.iter().find(|(name, ..)| name == package) else {
            panic!("{package} is not on the map: add it to ARCHITECTURE.md and here");
        };
        for dependency in wanted {
            let ours = known.contains(&dependency.as_str());
            if ours && *kind != Kind::All && dependency != "covey-wire" {
                assert!(allowed.contains(&dependency.as_str()), "{package} may not know {dependency}");
            }
            if *kind == Kind::Pure {
                assert!(
                    !EFFECTS.contains(&dependency.as_str()),
                    "{package} is pure: it may not have {dependency}"
                );
            }
            assert!(
                dependency != "bincode" || package == "covey-wire",
                "only covey-wire names bincode, not {package}"
            );
        }
    }
}

#[test]
fn effects_enter_at_doors_only() {
    for (package, kind, _) in MAP {
        let metadata = metadata(false);
        let manifest = metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| text(p, "name") == *package)
            .map(|p| std::path::PathBuf::from(text(p, "manifest_path")))
            .unwrap();
        let source = manifest.with_file_name("src");
        for file in files(".rs").into_iter().filter(|file| file.starts_with(&source)) {
            let opens = fs::read_to_string(&file).unwrap().contains("allow(clippy::disallowed_");
            assert!(
                !(opens && *kind == Kind::Pure),
                "{} is in a pure crate and opens a door",
                file.display()
            );
        }
    }
}

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    for file in files(".rs") {
        let content = fs::read_to_string(&file).unwrap();
        assert!(content.starts_with("//! "), "{} has no //! line on top", file.display());
    }
}

#[test]
fn long_files_say_why() {
    for file in files(".rs") {
        let content = fs::read_to_string(&file).unwrap();
        let lines = content.lines().count();
        assert!(
            lines <= LINES_MAX || content.contains("//! Long because "),
            "{} has {lines} lines: split it, or say why in a `//! Long because …` line",
            file.display()
        );
    }
}

#[test]
fn the_top_level_is_the_map() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "rustfmt.toml",
        "clippy.toml",
        ".ci",
        ".cargo",
        ".config",
        ".gitignore",
        ".git",
        "target",
        "node",
        "gossip",
        "overlay",
        "mesh",
        "crypto",
        "examples",
        "integration",
        "scripts",
    ];
    for entry in fs::read_dir(workspace()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(allowed.contains(&name.as_str()), "{name} is not on the map");
    }
}

#[test]
fn licences_and_bans_hold_for_everything_that_is_linked() {
    let metadata = metadata(true);
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(package, "name");
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            panic!("{name} may not come in: {reason}");
        }
        if LINKED_ONLY.contains(&name) {
            continue;
        }
        // Cargo's old form separates alternatives by a slash.
        let licence = text(package, "license").replace('/', " OR ");
        let parsed = spdx::Expression::parse(&licence)
            .unwrap_or_else(|error| panic!("{name} has no licence that can be read ({licence:?}): {error}"));
        let allowed =
            parsed.evaluate(|wanted| wanted.license.id().is_some_and(|id| LICENCES.contains(&id.name)));
        assert!(allowed, "{name} comes under {licence}, which is not among those that may be linked");
    }
}
