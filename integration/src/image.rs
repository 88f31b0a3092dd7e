//! The image that test containers are made of: Debian's static busybox, which stands for `alpine`, with `witness` in it.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::reply::{PATIENCE, run};

/// Commands that containers of the tests use.
const APPLETS: &[&str] = &[
    "sh", "ping", "sleep", "echo", "cat", "date", "hostname", "true", "false", "wget", "httpd", "ip",
    "nslookup", "nc",
];

/// The image in two forms, in a directory that somebody else owns.
pub struct Image {
    layout: PathBuf,
    archive: PathBuf,
}

impl Image {
    /// As an OCI layout: what `skopeo` calls `oci:…`.
    pub fn layout(&self) -> String {
        format!("oci:{}:latest", self.layout.display())
    }

    /// The same with this command, as an OCI layout.
    ///
    /// # Panics
    /// When umoci is missing.
    pub fn with_command(&self, tag: &str, command: &[&str]) -> String {
        let latest = format!("{}:latest", self.layout.display());
        let mut args = vec!["config", "--image", &latest, "--tag", tag];
        args.extend(command.iter().flat_map(|word| ["--config.cmd", word]));
        run("umoci", &args, &[], PATIENCE).ok();
        format!("oci:{}:{tag}", self.layout.display())
    }

    /// As `docker save` writes it, named `alpine:latest`.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// Makes the image below `home`.
    ///
    /// # Panics
    /// When busybox, umoci or skopeo are missing (`scripts/test` installs them).
    pub fn make(home: &Path) -> Self {
        let (root, layout) = (home.join("root"), home.join("layout"));
        let archive = home.join("alpine.tar");
        fs::create_dir_all(root.join("bin")).expect("a directory");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).expect("a link");
        }
        add_witness(&root);
        // The last in order: umoci forgets to fill up the block of a file that ends its archive.
        fs::create_dir_all(root.join("tmp")).expect("a directory");
        let tagged = format!("{}:latest", layout.display());
        let (layout_text, root_text) = (text(&layout), text(&root));
        for (program, args) in [
            ("umoci", &["init", "--layout", layout_text][..]),
            ("umoci", &["new", "--image", &tagged]),
            ("umoci", &["insert", "--image", &tagged, root_text, "/"]),
            // The grace of a stop has tests of its own: here nobody waits for a shell that ignores signals.
            (
                "umoci",
                &[
                    "config",
                    "--image",
                    &tagged,
                    "--config.cmd",
                    "sh",
                    "--config.env",
                    "PATH=/bin",
                    "--config.stopsignal",
                    "SIGKILL",
                ],
            ),
            (
                "skopeo",
                &[
                    "--insecure-policy",
                    "copy",
                    "--quiet",
                    &format!("oci:{tagged}"),
                    &format!("docker-archive:{}:alpine:latest", archive.display()),
                ],
            ),
        ] {
            run(program, args, &[], PATIENCE).ok();
        }
        Self { layout, archive }
    }
}

/// The program `witness`, which cargo has built beside this one.
///
/// # Panics
/// When this program does not lie in cargo's directory.
pub fn witness() -> PathBuf {
    let own = env::current_exe().expect("this program has a path");
    own.ancestors().nth(2).expect("it lies in cargo's directory").join("witness")
}

/// Adds it with the libraries that it asks for.
fn add_witness(root: &Path) {
    let program = witness();
    let target = root.join("bin/witness");
    run("strip", &["-o", text(&target), text(&program)], &[], PATIENCE).ok();
    for word in run("ldd", &[text(&program)], &[], PATIENCE).ok().split_whitespace() {
        if let Some(below) = word.strip_prefix('/') {
            let target = root.join(below);
            fs::create_dir_all(target.parent().unwrap_or(root)).expect("a directory");
            fs::copy(word, target).expect("the library is there");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are plain text")
}
