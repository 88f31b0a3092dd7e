//! The files by which a container finds names, its own among them.

use std::{fmt::Write as _, net::IpAddr};

use covey_state::container::Naming;

use crate::{container::NetworkMode, network::Attachment};

/// Their names in a container's exec directory, where they are for as long as it runs.
pub(crate) const FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// `/etc/hosts`.
pub(crate) fn hosts(hostname: &str, attachment: &Attachment, naming: &Naming) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        .to_owned();
    let own = attachment.addresses.first().map(|address| (*address, hostname));
    let more = attachment.hosts.iter().map(|(address, names)| (*address, names.as_str()));
    let lines = own.into_iter().chain(more).map(|(address, names)| hosts_line(address, names));
    let asked = naming.hosts.iter().map(|host| hosts_line(host.address, &host.names.join(" ")));
    text.extend(lines.chain(asked).map(|line| line + "\n"));
    text
}

/// One line of `/etc/hosts`, without its end.
pub(crate) fn hosts_line(address: IpAddr, names: &str) -> String {
    format!("{address}\t{names}")
}

/// `/etc/resolv.conf`: what the user asked for, then what the attachment says, and where neither names servers what the
/// host has; a resolver on the host's loopback is of no use in a namespace of its own.
pub(crate) fn resolv_conf(
    attachment: &Attachment,
    naming: &Naming,
    host: &str,
    network: &NetworkMode,
) -> String {
    // A resolver that the attachment has asks the user's servers itself.
    let nameservers =
        if attachment.nameservers.is_empty() { &naming.servers } else { &attachment.nameservers };
    let own_search = naming.search();
    let search = own_search.unwrap_or(&attachment.search);
    let key = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let chosen: Vec<String> = naming.options.iter().map(|option| key(option)).collect();
    let given = attachment.options.iter().filter(|option| !chosen.contains(&key(option)));
    let options: Vec<String> = naming.options.iter().chain(given).cloned().collect();
    let usable = |line: &&str| match line.split_ascii_whitespace().next() {
        Some("nameserver") => {
            let server = line.trim_start_matches("nameserver").trim().parse::<IpAddr>();
            *network == NetworkMode::Host || !server.is_ok_and(|address| address.is_loopback())
        }
        Some("search" | "domain") => search.is_empty() && own_search.is_none(),
        Some("options") => options.is_empty(),
        _ => true,
    };
    let host = if nameservers.is_empty() { host } else { "" };
    let mut text = host.lines().filter(usable).fold(String::new(), |text, line| text + line + "\n");
    // Writing to a String does not fail.
    for server in nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, values) in [("search", search), ("options", options.as_slice())] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use covey_state::container::HostEntry;

    use super::*;

    #[test]
    fn a_resolver_on_the_hosts_loopback_is_left_out() {
        let host = "search lan\nnameserver 127.0.0.53\nnameserver 9.9.9.9\n";
        let (none, naming) = (Attachment::default(), Naming::default());
        assert_eq!(resolv_conf(&none, &naming, host, &NetworkMode::Edge), "search lan\nnameserver 9.9.9.9\n");
        assert_eq!(resolv_conf(&none, &naming, host, &NetworkMode::Host), host);
    }

    /// CTR-11
    #[test]
    fn what_the_network_says_of_names_comes_before_what_the_host_says() {
        let host = "search lan\nnameserver 9.9.9.9\noptions edns0\n";
        let naming = Naming::default();
        let search = Attachment { search: vec!["a".into(), "b".into()], ..Attachment::default() };
        let text = "nameserver 9.9.9.9\noptions edns0\nsearch a b\n";
        assert_eq!(resolv_conf(&search, &naming, host, &NetworkMode::Edge), text);
        let own = Attachment {
            addresses: vec![[10, 0, 0, 5].into(), [10, 1, 0, 5].into()],
            nameservers: vec![[127, 0, 0, 11].into()],
            options: vec!["ndots:0".into()],
            hosts: vec![([10, 0, 0, 9].into(), "db db.lan".into())],
            ..Attachment::default()
        };
        assert_eq!(
            resolv_conf(&own, &naming, host, &NetworkMode::Edge),
            "nameserver 127.0.0.11\noptions ndots:0\n"
        );
        assert!(
            hosts("box", &own, &naming).ends_with("ip6-allrouters\n10.0.0.5\tbox\n10.0.0.9\tdb db.lan\n")
        );
    }

    /// CTR-11
    #[test]
    fn what_the_user_says_of_names_comes_before_all() {
        let host = "search lan\nnameserver 9.9.9.9\noptions edns0\n";
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let naming = Naming {
            servers: vec![[192, 0, 2, 53].into()],
            search: words(&["corp"]),
            options: words(&["timeout:1"]),
            hosts: vec![HostEntry { address: [10, 0, 0, 7].into(), names: words(&["old", "old.lan"]) }],
        };
        let none = Attachment::default();
        let text = "nameserver 192.0.2.53\nsearch corp\noptions timeout:1\n";
        assert_eq!(resolv_conf(&none, &naming, host, &NetworkMode::None), text);
        // A resolver of the attachment asks the user's server itself, and its option stays where the user names no other.
        let resolver = Attachment {
            nameservers: vec![[127, 0, 0, 11].into()],
            options: words(&["ndots:0"]),
            ..Attachment::default()
        };
        let text = "nameserver 127.0.0.11\nsearch corp\noptions timeout:1 ndots:0\n";
        assert_eq!(resolv_conf(&resolver, &naming, host, &NetworkMode::Edge), text);
        let chosen = Naming { options: words(&["ndots:2"]), ..Naming::default() };
        let text = "nameserver 127.0.0.11\noptions ndots:2\n";
        assert_eq!(resolv_conf(&resolver, &chosen, host, &NetworkMode::Edge), text);
        let nowhere = Naming { search: words(&["."]), ..Naming::default() };
        let text = "nameserver 9.9.9.9\noptions edns0\n";
        assert_eq!(resolv_conf(&none, &nowhere, host, &NetworkMode::Host), text);
        assert!(hosts("box", &none, &naming).ends_with("ip6-allrouters\n10.0.0.7\told old.lan\n"));
    }
}
