//! The image that test containers are made of: Debian's static busybox, which stands for `alpine`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::reply::{PATIENCE, run};

/// Commands that containers of the tests use.
const APPLETS: &[&str] =
    &["sh", "ping", "sleep", "echo", "cat", "date", "hostname", "true", "false", "wget", "httpd"];

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

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are plain text")
}
