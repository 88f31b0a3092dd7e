//! Switches of a whole network namespace, below `/proc/sys/net` of the thread that is in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use covey_overlay::object::LINK_PREFIX;

use crate::stack::StackError;

const ROOT: &str = "/proc/sys/net";
/// For IPv4 the switches of each link, and of `all` and `default`.
const CONF: &str = "/proc/sys/net/ipv4/conf";
const RP_FILTER: &str = "ipv4/conf/all/rp_filter";

/// Its value; the wanted one where there is no such switch, as in a kernel without IPv6: nothing can be done about it.
pub fn read((path, wanted): (&'static str, u32)) -> Result<u32, StackError> {
    match value(&Path::new(ROOT).join(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(wanted),
        result => result.map_err(|source| StackError::Switch { path, source }),
    }
}

pub fn write(path: &'static str, wanted: u32) -> Result<(), StackError> {
    let kept = if path == RP_FILTER { keep_rp_filter() } else { Ok(()) };
    kept.and_then(|()| fs::write(Path::new(ROOT).join(path), wanted.to_string()))
        .map_err(|source| StackError::Switch { path, source })
}

/// The kernel takes the maximum of a link's own value and that of `all`: before that of `all` is lowered, links of
/// others, and those that will come, get what they have in effect.
fn keep_rp_filter() -> io::Result<()> {
    let all = value(&Path::new(ROOT).join(RP_FILTER))?;
    for entry in fs::read_dir(CONF)? {
        let name = entry?.file_name();
        let path: PathBuf = Path::new(CONF).join(&name).join("rp_filter");
        let ours = name.to_string_lossy().starts_with(LINK_PREFIX);
        if !ours && name != "all" && value(&path)? < all {
            fs::write(path, all.to_string())?;
        }
    }
    Ok(())
}

fn value(path: &Path) -> io::Result<u32> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}
