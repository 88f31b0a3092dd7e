//! Who a process is: users and groups by name, looked up in the files of the container that it is in.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use oci_spec::runtime::User;

use super::Failure;

/// Bytes of a user or group file that are looked at.
const FILE_MAX: u64 = 1 << 20;

/// User, groups and home of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// Resolves `user` in the files below the current root. Its `username`, where there is one, is
/// `name|uid[:group|gid][,group|gid…]`, the last ones being additional groups.
pub(super) fn resolve(user: &User) -> Result<Identity, Failure> {
    let passwd = read("/etc/passwd").map_err(Failure::at("/etc/passwd"))?;
    let group = read("/etc/group").map_err(Failure::at("/etc/group"))?;
    match user.username().as_deref() {
        Some(name) => by_name(name, &passwd, &group),
        None => Ok(Identity {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            home: home(user.uid(), &passwd),
        }),
    }
}

/// An image may have none, and may have something there that is not a file.
fn read(path: &str) -> io::Result<String> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = match opened {
        Ok(file) if file.metadata()?.is_file() => file,
        Ok(_) => return Ok(String::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![];
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lines(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.split(':').collect())
}

fn by_name(text: &str, passwd: &str, group: &str) -> Result<Identity, Failure> {
    let mut parts = text.split(',');
    let (user, primary) = match parts.next().unwrap_or_default() {
        first if first.contains(':') => first.split_once(':').unwrap_or((first, "")),
        first => (first, ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = lines(passwd)
        .find(|e| e.len() >= 6 && e[0] == user)
        .or_else(|| lines(passwd).find(|e| e.len() >= 6 && e[2] == user));
    let number = |entry: &[&str], field: usize| entry.get(field).and_then(|f| f.parse::<u32>().ok());
    let uid = entry.as_deref().and_then(|e| number(e, 2)).or_else(|| user.parse().ok()).ok_or_else(|| {
        Failure::build(format_args!("unable to find user {user}: no matching entries in passwd file"))
    })?;
    let mut groups = vec![];
    let gid = if primary.is_empty() {
        let name = entry.as_ref().map_or("", |e| e[0]);
        let member = |e: &Vec<&str>| !name.is_empty() && e.len() >= 4 && e[3].split(',').any(|m| m == name);
        groups.extend(lines(group).filter(member).filter_map(|e| number(&e, 2)));
        entry.as_deref().and_then(|e| number(e, 3)).unwrap_or(0)
    } else {
        group_id(primary, group)?
    };
    for extra in parts.filter(|extra| !extra.is_empty()) {
        groups.push(group_id(extra, group)?);
    }
    // Among the additional ones too: a process that changes its primary group must not shake off what that forbids.
    groups.insert(0, gid);
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(Identity { uid, gid, groups, home: home(uid, passwd) })
}

fn group_id(name: &str, group: &str) -> Result<u32, Failure> {
    lines(group)
        .find(|e| e.len() >= 3 && e[0] == name)
        .and_then(|e| e[2].parse().ok())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| {
            Failure::build(format_args!("unable to find group {name}: no matching entries in group file"))
        })
}

fn home(uid: u32, passwd: &str) -> String {
    lines(passwd)
        .find(|e| e.len() >= 6 && e[2].parse() == Ok(uid) && !e[5].is_empty())
        .map_or("/".to_owned(), |e| e[5].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/home/bob:/bin/sh\nbroken\n1234:x:7:8::/odd:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,eve\naudio:x:29:bob\n";

    fn who(text: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        by_name(text, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups, i.home)).map_err(|f| f.text)
    }

    /// SVC-02
    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        assert_eq!(who(""), Ok((0, 0, vec![0], "/root".into())));
        assert_eq!(who("bob"), Ok((1000, 100, vec![100, 10, 29], "/home/bob".into())));
        assert_eq!(who("1000"), Ok((1000, 100, vec![100, 10, 29], "/home/bob".into())));
        assert_eq!(who("bob:wheel"), Ok((1000, 10, vec![10], "/home/bob".into())));
        assert_eq!(who("bob:,wheel,4000"), Ok((1000, 100, vec![100, 10, 29, 4000], "/home/bob".into())));
        assert_eq!(who("4711:4712"), Ok((4711, 4712, vec![4712], "/".into())));
        assert_eq!(who("1234"), Ok((7, 8, vec![8], "/odd".into())), "a name wins over a number");
        assert_eq!(
            who("mallory"),
            Err("unable to find user mallory: no matching entries in passwd file".into())
        );
        assert_eq!(
            who("bob:nobody"),
            Err("unable to find group nobody: no matching entries in group file".into())
        );
    }
}
