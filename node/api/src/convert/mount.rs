//! Mounts, of services and of plain containers.

use covey_state::container::{Mount, MountKind};

use super::{amount, later};
use crate::{failure::Failure, wire::service as wire};

/// A mount of a request.
pub fn from_wire(mount: wire::Mount) -> Result<Mount, Failure> {
    later::refuse(&mount.rest, later::MOUNT)?;
    check_target(&mount.target)?;
    let kind = match mount.kind.as_str() {
        "bind" => MountKind::Bind { source: bind_source(mount.source)? },
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(Failure::invalid("invalid mount config for type \"tmpfs\": it has no source"));
            }
            let options = mount.tmpfs_options.unwrap_or_default();
            MountKind::Tmpfs { size: amount(options.size_bytes, "tmpfs size")?, mode: options.mode }
        }
        "" | "volume" | "cluster" => return Err(Failure::not_yet("a volume (use type=bind or type=tmpfs)")),
        "image" | "npipe" => return Err(Failure::not_yet(format!("mount type {}", mount.kind))),
        other => return Err(Failure::invalid(format!("mount type unknown: {other:?}"))),
    };
    Ok(Mount { target: mount.target, read_only: mount.read_only, kind })
}

/// As the Engine API writes it.
pub fn to_wire(mount: &Mount) -> wire::Mount {
    let (kind, source, tmpfs_options) = match &mount.kind {
        MountKind::Bind { source } => ("bind", source.clone(), None),
        MountKind::Tmpfs { size, mode } => {
            let size_bytes = i64::try_from(*size).unwrap_or(i64::MAX);
            let said = (*size, *mode) != (0, 0);
            ("tmpfs", String::new(), said.then_some(wire::TmpfsOptions { size_bytes, mode: *mode }))
        }
    };
    wire::Mount {
        kind: kind.to_owned(),
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        tmpfs_options,
        rest: wire::Mount::default().rest,
    }
}

/// A bind as `run -v` writes it: `source:target[:options]`.
pub fn from_bind(text: &str) -> Result<Mount, Failure> {
    let wrong = || Failure::invalid(format!("invalid volume specification: '{text}'"));
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or("");
    let target = parts.next().ok_or_else(wrong)?;
    let options = parts.next().unwrap_or("");
    if parts.next().is_some() {
        return Err(wrong());
    }
    if !source.starts_with('/') {
        return Err(Failure::not_yet("a named volume (the source must be an absolute path)"));
    }
    check_target(target)?;
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // What is mounted is private and not relabelled: these ask for nothing else.
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            other => return Err(Failure::invalid(format!("invalid mode: {other}"))),
        }
    }
    let kind = MountKind::Bind { source: source.to_owned() };
    Ok(Mount { target: target.to_owned(), read_only, kind })
}

/// A tmpfs as `run --tmpfs` writes it.
pub fn from_tmpfs(target: &str, options: &str) -> Result<Mount, Failure> {
    check_target(target)?;
    let (mut read_only, mut size, mut mode) = (false, 0, 0);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || Failure::invalid(format!("invalid tmpfs option {option:?}"));
        match option.split_once('=') {
            None if option == "ro" => read_only = true,
            // As every tmpfs is mounted.
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
            Some(("size", text)) => size = bytes(text).ok_or_else(wrong)?,
            Some(("mode", text)) => mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok(Mount { target: target.to_owned(), read_only, kind: MountKind::Tmpfs { size, mode } })
}

/// `64m`, base 1024.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn bind_source(source: String) -> Result<String, Failure> {
    if source.starts_with('/') {
        return Ok(source);
    }
    Err(Failure::invalid(format!(
        "invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
    )))
}

fn check_target(target: &str) -> Result<(), Failure> {
    if target.starts_with('/') && target.len() > 1 {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "invalid mount target {target:?}: it must be an absolute path other than /"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_read_back() {
        let tmpfs = from_tmpfs("/run", "rw,noexec,size=64m,mode=700").unwrap();
        assert_eq!(tmpfs.kind, MountKind::Tmpfs { size: 64 << 20, mode: 0o700 });
        let bind = from_bind("/srv:/data:ro").unwrap();
        assert_eq!(bind.kind, MountKind::Bind { source: "/srv".into() });
        for mount in [tmpfs, bind] {
            assert_eq!(from_wire(to_wire(&mount)), Ok(mount));
        }
    }

    #[test]
    fn mounts_that_are_not_there_yet_or_make_no_sense_are_refused() {
        for text in ["data:/data", "/a", "/a:b", "/a:/b:sideways", "/a:/b:ro:x", "/a:/"] {
            assert!(from_bind(text).is_err(), "{text}");
        }
        assert!(from_tmpfs("/run", "size=many").is_err());
        let volume = wire::Mount { kind: "volume".into(), target: "/d".into(), ..wire::Mount::default() };
        assert!(from_wire(volume).is_err_and(|failure| failure.message.starts_with("not yet: ")));
    }
}
