//! Columns of ports, as Docker's clients show them.

use std::net::IpAddr;

use crate::client::model::{ContainerPort, Port};

/// Consecutive ports that are shown as one.
struct Span<'a> {
    protocol: &'a str,
    host_ip: &'a str,
    published: (u16, u16),
    target: (u16, u16),
}

impl<'a> Span<'a> {
    fn of(port: &'a Port) -> Self {
        Self {
            protocol: &port.protocol,
            host_ip: &port.host_ip,
            published: (port.published_port, port.published_port),
            target: (port.target_port, port.target_port),
        }
    }

    /// True if `port` was the next one, and now is in it.
    fn take(&mut self, port: &Port) -> bool {
        let follows = |last: u16, next: u16| last.checked_add(1) == Some(next);
        // Either each port has its own, or all lead to one.
        let one_target = self.target.0 == self.target.1 && port.target_port == self.target.0;
        let one_each = self.target.1 - self.target.0 == self.published.1 - self.published.0
            && follows(self.target.1, port.target_port);
        let taken = self.protocol == port.protocol
            && self.host_ip == port.host_ip
            && follows(self.published.1, port.published_port)
            && (one_target || one_each);
        if taken {
            (self.published.1, self.target.1) = (port.published_port, port.target_port);
        }
        taken
    }

    fn text(&self) -> String {
        let host = if self.host_ip.is_empty() { "*".to_owned() } else { bracketed(self.host_ip) };
        let (published, target) = (span(self.published), span(self.target));
        format!("{host}:{published}->{target}/{}", self.protocol)
    }
}

/// `*:8080->80/tcp`: the ports of a service that every host answers on (PRT-04).
pub fn of_service(ports: &[Port]) -> String {
    let mut ports: Vec<_> = ports.iter().filter(|port| port.publish_mode == "ingress").collect();
    ports.sort_by_key(|port| (&port.protocol, &port.host_ip, port.published_port, port.target_port));
    let mut spans = Vec::<Span<'_>>::new();
    for port in ports {
        if !spans.last_mut().is_some_and(|span| span.take(port)) {
            spans.push(Span::of(port));
        }
    }
    spans.iter().map(Span::text).collect::<Vec<_>>().join(", ")
}

/// `*:32768->53/udp`: the ports of its host that are a task's own (host mode).
pub fn of_task(ports: &[Port]) -> String {
    ports.iter().map(|port| Span::of(port).text()).collect::<Vec<_>>().join(",")
}

/// `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`: the ports of a container; `80/tcp` where none of the host leads there
/// (PRT-12).
pub fn of_container(ports: &[ContainerPort]) -> String {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|port| (port.private_port, &port.ip, port.public_port, &port.kind));
    let (mut spans, mut mapped) = (Vec::<(&str, &str, (u16, u16))>::new(), Vec::new());
    for port in ports {
        let (ip, kind, at) = (port.ip.as_str(), port.kind.as_str(), port.private_port);
        if !ip.is_empty() && port.public_port != at {
            mapped.push(format!("{}:{}->{at}/{kind}", bracketed(ip), port.public_port));
            continue;
        }
        let above = spans.iter_mut().rev().find(|span| (span.0, span.1) == (ip, kind));
        match above {
            Some(span) if span.2.1.checked_add(1) == Some(at) => span.2.1 = at,
            _ => spans.push((ip, kind, (at, at))),
        }
    }
    let shown = |(ip, kind, ports): (&str, &str, (u16, u16))| {
        let ports = span(ports);
        if ip.is_empty() {
            format!("{ports}/{kind}")
        } else {
            format!("{}:{ports}->{ports}/{kind}", bracketed(ip))
        }
    };
    spans.into_iter().map(shown).chain(mapped).collect::<Vec<_>>().join(", ")
}

/// An address as it stands before a port.
pub fn bracketed(ip: &str) -> String {
    match ip.parse() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]"),
        _ => ip.to_owned(),
    }
}

fn span((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: &str, published: u16, target: u16) -> Port {
        Port {
            protocol: protocol.into(),
            target_port: target,
            published_port: published,
            publish_mode: "ingress".into(),
            host_ip: String::new(),
        }
    }

    /// PRT-04, C-32
    #[test]
    fn consecutive_ports_of_a_service_are_one_range() {
        assert_eq!(of_service(&[port("tcp", 8080, 80)]), "*:8080->80/tcp");
        let pairs = [port("tcp", 8001, 81), port("tcp", 8000, 80), port("tcp", 8002, 82)];
        assert_eq!(of_service(&pairs), "*:8000-8002->80-82/tcp");
        let one = [port("tcp", 8000, 80), port("tcp", 8001, 80), port("udp", 8002, 80)];
        assert_eq!(of_service(&one), "*:8000-8001->80/tcp, *:8002->80/udp");
        let apart =
            [port("tcp", 8000, 80), port("tcp", 8001, 80), port("tcp", 8002, 81), port("tcp", 8004, 82)];
        assert_eq!(of_service(&apart), "*:8000-8001->80/tcp, *:8002->81/tcp, *:8004->82/tcp");
    }

    #[test]
    fn an_address_stands_in_the_place_of_the_star_and_host_ports_are_the_tasks() {
        let mut bound = port("tcp", 8080, 80);
        bound.host_ip = "::1".into();
        assert_eq!(of_service(&[bound]), "[::1]:8080->80/tcp");
        let host = Port { publish_mode: "host".into(), ..port("udp", 32768, 53) };
        assert_eq!(of_service(std::slice::from_ref(&host)), "");
        assert_eq!(of_task(&[host, port("tcp", 1, 2)]), "*:32768->53/udp,*:1->2/tcp");
    }

    /// PRT-12
    #[test]
    fn the_ports_of_a_container_are_shown_as_docker_does() {
        let port = |ip: &str, public: u16, private: u16| ContainerPort {
            ip: ip.into(),
            private_port: private,
            public_port: public,
            kind: "tcp".into(),
        };
        assert_eq!(of_container(&[port("", 0, 80)]), "80/tcp");
        assert_eq!(of_container(&[port("", 0, 80), port("", 0, 81), port("", 0, 443)]), "80-81/tcp, 443/tcp");
        let both = [port("0.0.0.0", 8080, 80), port("::", 8080, 80)];
        assert_eq!(of_container(&both), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        let same = [port("0.0.0.0", 80, 80), port("::", 80, 80), port("0.0.0.0", 81, 81), port("::", 81, 81)];
        assert_eq!(of_container(&same), "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp");
    }
}
