//! How containers find names: `--dns*`, `--add-host`, and the same of services.

use std::net::IpAddr;

use covey_state::container::{HostEntry, Naming};

use crate::{
    failure::Failure,
    wire::{container, service},
};

/// Stands for the address by which a container reaches its host.
const HOST_GATEWAY: &str = "host-gateway";

/// What a plain container asks for; `gateway` is where it reaches its host.
pub fn of_container(host: &container::HostConfig, gateway: Option<IpAddr>) -> Result<Naming, Failure> {
    let hosts = host.extra_hosts.iter().map(|text| extra_host(text, gateway));
    checked(Naming {
        servers: servers(&host.dns)?,
        search: host.dns_search.clone(),
        options: host.dns_options.clone(),
        hosts: hosts.collect::<Result<_, _>>()?,
    })
}

/// What the tasks of a service are to have. The store checks it with the rest of the spec.
pub fn of_service(dns: service::DnsConfig, hosts: &[String]) -> Result<Naming, Failure> {
    Ok(Naming {
        servers: servers(&dns.nameservers)?,
        search: dns.search,
        options: dns.options,
        hosts: hosts.iter().map(|text| line(text)).collect::<Result<_, _>>()?,
    })
}

fn checked(naming: Naming) -> Result<Naming, Failure> {
    naming.check().map_err(|error| Failure::invalid(error.to_string()))?;
    Ok(naming)
}

fn servers(texts: &[String]) -> Result<Vec<IpAddr>, Failure> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| Failure::invalid(format!("bad nameserver address {text:?}: it is no IP address")))
    };
    texts.iter().map(read).collect()
}

/// `name:address`, where an address of IPv6 may stand in brackets.
fn extra_host(text: &str, gateway: Option<IpAddr>) -> Result<HostEntry, Failure> {
    let wrong = |what: &str| Failure::invalid(format!("invalid extra host {text:?}: {what}"));
    let (name, address) = text.split_once(':').ok_or_else(|| wrong("it is no name:address"))?;
    let address = match address {
        HOST_GATEWAY => {
            gateway.ok_or_else(|| wrong("this host has an address for its containers only in a swarm"))?
        }
        _ => {
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            bare.parse().map_err(|_| wrong("its address is no IP address"))?
        }
    };
    Ok(HostEntry { address, names: vec![name.to_owned()] })
}

/// `address name alias…`, as in the file itself.
fn line(text: &str) -> Result<HostEntry, Failure> {
    let mut words = text.split_ascii_whitespace();
    let address = words.next().unwrap_or_default();
    let address = address.parse().map_err(|_| {
        Failure::invalid(format!("invalid host entry {text:?}: {address:?} is no IP address"))
    })?;
    Ok(HostEntry { address, names: words.map(str::to_owned).collect() })
}

/// As a plain container asked for it.
pub fn extra_hosts(naming: &Naming) -> Vec<String> {
    let of_entry = |entry: &HostEntry| {
        let address = entry.address;
        entry.names.iter().map(move |name| format!("{name}:{address}")).collect::<Vec<_>>()
    };
    naming.hosts.iter().flat_map(of_entry).collect()
}

/// As a service asked for it.
pub fn lines(naming: &Naming) -> Vec<String> {
    naming.hosts.iter().map(|entry| format!("{} {}", entry.address, entry.names.join(" "))).collect()
}

/// As a service asked for it.
pub fn dns_config(naming: &Naming) -> service::DnsConfig {
    service::DnsConfig {
        nameservers: texts(&naming.servers),
        search: naming.search.clone(),
        options: naming.options.clone(),
    }
}

/// Addresses as the Engine API writes them.
pub fn texts(servers: &[IpAddr]) -> Vec<String> {
    servers.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hosts: &[&str]) -> Result<Naming, String> {
        let extra_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let host = container::HostConfig { extra_hosts, ..container::HostConfig::default() };
        of_container(&host, Some([100, 64, 1, 1].into())).map_err(|failure| failure.message)
    }

    /// CTR-11
    #[test]
    fn extra_hosts_are_read_as_they_are_written() {
        let written = ["db:10.0.0.9", "six:fd00::9", "host.docker.internal:100.64.1.1"];
        let naming = read(&["db:10.0.0.9", "six:[fd00::9]", "host.docker.internal:host-gateway"]).unwrap();
        assert_eq!(extra_hosts(&naming), written);
        for wrong in ["db", "db:", "db:here", ":10.0.0.9", "a b:10.0.0.9", "a\nb:10.0.0.9"] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
        let host = container::HostConfig {
            extra_hosts: vec!["host:host-gateway".to_owned()],
            ..container::HostConfig::default()
        };
        assert!(of_container(&host, None).unwrap_err().message.contains("only in a swarm"));
    }

    #[test]
    fn hosts_of_services_are_lines_of_the_file() {
        let dns = service::DnsConfig { nameservers: vec!["192.0.2.53".into()], ..Default::default() };
        let naming = of_service(dns.clone(), &["10.0.0.9 db db.lan".to_owned()]).unwrap();
        assert_eq!((lines(&naming), dns_config(&naming)), (vec!["10.0.0.9 db db.lan".to_owned()], dns));
        for wrong in ["", "db 10.0.0.9", "host-gateway db"] {
            assert!(of_service(service::DnsConfig::default(), &[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }
}
