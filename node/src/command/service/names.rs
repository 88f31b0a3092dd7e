//! How the tasks of a service find names: `--dns`, `--host` and the like, when it is made and when it is changed.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::edit;

const NAMESERVERS: &str = "TaskTemplate/ContainerSpec/DNSConfig/Nameservers";
const SEARCH: &str = "TaskTemplate/ContainerSpec/DNSConfig/Search";
const OPTIONS: &str = "TaskTemplate/ContainerSpec/DNSConfig/Options";
const HOSTS: &str = "TaskTemplate/ContainerSpec/Hosts";

/// Options of `service create`.
#[derive(clap::Args, Default)]
pub struct Wanted {
    /// A name server in the place of the host's (repeatable)
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    dns: Vec<IpAddr>,
    /// A domain in which names are looked up, in the place of the host's; . for none (repeatable)
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    dns_search: Vec<String>,
    /// An option of the tasks' resolver, such as ndots:2 (repeatable)
    #[arg(long, value_name = "OPTION", help_heading = "Network")]
    dns_option: Vec<String>,
    /// A name that the tasks know by themselves: NAME:ADDRESS (repeatable)
    #[arg(long = "host", value_name = "NAME:ADDRESS", help_heading = "Network")]
    hosts: Vec<String>,
}

/// Options of `service update`.
#[derive(clap::Args, Default)]
pub struct Changes {
    /// Add a name server in the place of the host's (repeatable)
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    dns_add: Vec<IpAddr>,
    /// Remove a name server (repeatable)
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    dns_rm: Vec<IpAddr>,
    /// Add a domain in which names are looked up (repeatable)
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    dns_search_add: Vec<String>,
    /// Remove a domain in which names are looked up (repeatable)
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    dns_search_rm: Vec<String>,
    /// Add an option of the tasks' resolver, such as ndots:2 (repeatable)
    #[arg(long, value_name = "OPTION", help_heading = "Network")]
    dns_option_add: Vec<String>,
    /// Remove an option of the tasks' resolver (repeatable)
    #[arg(long, value_name = "OPTION", help_heading = "Network")]
    dns_option_rm: Vec<String>,
    /// Add a name that the tasks know by themselves: NAME:ADDRESS (repeatable)
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    host_add: Vec<String>,
    /// Remove a name that the tasks know by themselves: NAME, or NAME:ADDRESS (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    host_rm: Vec<String>,
}

impl Wanted {
    /// Writes them into the spec.
    ///
    /// # Errors
    /// One cannot be understood.
    pub fn apply(&self, spec: &mut Value) -> Result<()> {
        change(spec, NAMESERVERS, &texts(&self.dns), &[])?;
        change(spec, SEARCH, &self.dns_search, &[])?;
        change(spec, OPTIONS, &self.dns_option, &[])?;
        change_hosts(spec, &self.hosts, &[])
    }
}

impl Changes {
    /// Writes them into the spec of a service; all else stays.
    ///
    /// # Errors
    /// One cannot be understood.
    pub fn apply(&self, spec: &mut Value) -> Result<()> {
        change(spec, NAMESERVERS, &texts(&self.dns_add), &texts(&self.dns_rm))?;
        change(spec, SEARCH, &self.dns_search_add, &self.dns_search_rm)?;
        change(spec, OPTIONS, &self.dns_option_add, &self.dns_option_rm)?;
        change_hosts(spec, &self.host_add, &self.host_rm)
    }
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Removes words of a list, then adds those that are not there.
fn change(spec: &mut Value, path: &str, add: &[String], remove: &[String]) -> Result<()> {
    edit::list(spec, path, |mut words| {
        words.retain(|old| !remove.iter().any(|word| old == word));
        for word in add {
            if !words.iter().any(|old| old == word) {
                words.push(json!(word));
            }
        }
        Ok(words)
    })
}

/// Removes names, and lines that have none left, then adds lines that are not there.
fn change_hosts(spec: &mut Value, add: &[String], remove: &[String]) -> Result<()> {
    let add = add.iter().map(|text| host(text)).collect::<Result<Vec<_>>>()?;
    edit::list(spec, HOSTS, |lines| {
        let mut lines: Vec<String> =
            lines.iter().filter_map(Value::as_str).filter_map(|line| without(line, remove)).collect();
        for line in add {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        Ok(lines.into_iter().map(Value::String).collect())
    })
}

/// A line without these names, each alone or with the address that it is to have; `None`: it had no others.
fn without(line: &str, remove: &[String]) -> Option<String> {
    let mut words = line.split_whitespace();
    let address = words.next()?;
    let is_gone = |name: &str| {
        let with_address = format!("{name}:{address}");
        remove.iter().any(|text| text == name || *text == with_address)
    };
    let (gone, left): (Vec<_>, Vec<_>) = words.partition(|name| is_gone(name));
    match (gone.is_empty(), left.is_empty()) {
        (true, _) => Some(line.to_owned()),
        (false, true) => None,
        (false, false) => Some(format!("{address} {}", left.join(" "))),
    }
}

/// `NAME:ADDRESS` as a line of `/etc/hosts`.
fn host(text: &str) -> Result<String> {
    let Some((name, address)) = text.split_once(':').filter(|(name, _)| !name.is_empty()) else {
        bail!("{text}: a host has to have the form NAME:ADDRESS");
    };
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().with_context(|| format!("host {text}"))?;
    Ok(format!("{address} {name}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        changes: Changes,
    }

    fn changed(words: &str, mut spec: Value) -> Result<Value> {
        let line = Line::parse_from(["x"].into_iter().chain(words.split_whitespace()));
        line.changes.apply(&mut spec)?;
        Ok(spec["TaskTemplate"]["ContainerSpec"].take())
    }

    fn spec(container: Value) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": container}})
    }

    /// SVC-48
    #[test]
    fn what_finds_names_comes_and_goes() {
        let words = "--dns-add 1.1.1.1 --dns-add fd00::53 --dns-rm 9.9.9.9 --dns-search-add lan --dns-search-rm old \
                     --dns-option-add ndots:2 --dns-option-add ndots:2 --dns-option-rm rotate";
        let old = json!({"New": 1, "DNSConfig": {"Nameservers": ["9.9.9.9", "1.1.1.1"], "Search": ["old"],
            "Options": ["rotate"]}});
        let expected = json!({"New": 1, "DNSConfig": {"Nameservers": ["1.1.1.1", "fd00::53"], "Search": ["lan"],
            "Options": ["ndots:2"]}});
        assert_eq!(changed(words, spec(old)).unwrap(), expected);
    }

    /// SVC-48
    #[test]
    fn hosts_are_removed_by_name_or_with_their_address() {
        let old = || json!({"Hosts": ["10.0.0.1 db sql", "10.0.0.2 db", "fd00::3 six"]});
        let hosts = |words: &str| changed(words, spec(old())).unwrap()["Hosts"].clone();
        assert_eq!(hosts("--host-rm db"), json!(["10.0.0.1 sql", "fd00::3 six"]));
        assert_eq!(hosts("--host-rm db:10.0.0.2 --host-rm six:fd00::3"), json!(["10.0.0.1 db sql"]));
        assert_eq!(hosts("--host-rm nobody"), old()["Hosts"]);
        let added = hosts("--host-rm db --host-rm six --host-add six:[fd00::3] --host-add six:fd00::3");
        assert_eq!(added, json!(["10.0.0.1 sql", "fd00::3 six"]));
        for wrong in ["--host-add db", "--host-add :1.2.3.4", "--host-add db:here"] {
            assert!(changed(wrong, spec(old())).is_err(), "{wrong}");
        }
    }

    /// SVC-47
    #[test]
    fn no_change_of_names_leaves_the_spec_as_it_was() {
        assert_eq!(changed("--dns-rm 1.1.1.1 --host-rm db", spec(json!({}))).unwrap(), json!({}));
    }
}
