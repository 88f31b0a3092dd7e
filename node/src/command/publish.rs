//! `--publish` of services and containers, in its short and its long form.

use std::{net::IpAddr, ops::RangeInclusive};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

/// Ports of one command line; how many of them a service may publish is the daemon's to say.
const PORTS_MAX: usize = 1024;

/// Where a published port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On every host.
    Ingress,
    /// On the task's host only.
    Host,
}

impl Mode {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        }
    }
}

/// One port of a container, and where it is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Only where this address of the host is addressed.
    host_ip: Option<IpAddr>,
    /// The host's port, or any of these; `None`: one that is free.
    published: Option<RangeInclusive<u16>>,
    /// The container's port, never 0.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Where the user said it.
    pub mode: Option<Mode>,
}

/// What one `--publish` says: `[[IP:][PUBLISHED]:]TARGET[/PROTOCOL]`, with ranges of ports, or
/// `target=…,published=…,protocol=…,mode=…,host_ip=…` (PRT-06).
///
/// # Errors
/// It cannot be understood, says a port that there is not, or ranges of different lengths.
pub fn parse(text: &str) -> Result<Vec<Publish>> {
    let parsed = if text.contains('=') { long(text) } else { short(text) };
    parsed.with_context(|| format!("--publish {text}"))
}

/// The ports of a service, as the API has them.
///
/// # Errors
/// As `parse`, or there are too many, or one is there twice.
pub fn of_service(texts: &[String]) -> Result<Vec<Value>> {
    let mut ports = Vec::new();
    for port in all(texts)? {
        // A range for one port of the container: each of them leads there.
        match port.published.clone() {
            None => ports.push(port),
            Some(range) => {
                ports.extend(range.map(|at| Publish { published: Some(at..=at), ..port.clone() }));
            }
        }
    }
    check(&ports)?;
    Ok(ports.iter().map(service_port).collect())
}

/// The ports of a plain container: what it exposes, and what of that is bound to ports of the host.
///
/// # Errors
/// As `of_service`, or a port in ingress mode, which only services have.
pub fn of_container(texts: &[String]) -> Result<(Value, Value)> {
    let ports = all(texts)?;
    check(&ports)?;
    let (mut exposed, mut bindings) = (Map::new(), Map::new());
    for port in &ports {
        if port.mode == Some(Mode::Ingress) {
            bail!("--publish: mode=ingress is for services; leave it out for a plain container");
        }
        let key = format!("{}/{}", port.target, port.protocol);
        exposed.insert(key.clone(), json!({}));
        let bound = bindings.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = bound.as_array_mut() {
            list.push(json!({"HostIp": port.host_text(), "HostPort": port.published_text()}));
        }
    }
    Ok((Value::Object(exposed), Value::Object(bindings)))
}

/// The ports of `--expose`, `PORT[/PROTOCOL]` or a range of them, as the API has them: `80/tcp`.
///
/// # Errors
/// One cannot be understood, or there are too many.
pub fn exposed(texts: &[String]) -> Result<Vec<String>> {
    let mut exposed = Vec::new();
    for text in texts {
        let (range, protocol) = targets(text).with_context(|| format!("--expose {text}"))?;
        if exposed.len() + range.len() > PORTS_MAX {
            bail!("--expose {text}: more than {PORTS_MAX} ports are exposed; expose fewer");
        }
        exposed.extend(range.map(|port| format!("{port}/{protocol}")));
    }
    Ok(exposed)
}

fn targets(text: &str) -> Result<(RangeInclusive<u16>, &'static str)> {
    let (ports, name) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    Ok((target_range(ports)?, protocol(name)?))
}

impl Publish {
    fn host_text(&self) -> String {
        self.host_ip.map(|ip| ip.to_string()).unwrap_or_default()
    }

    fn published_text(&self) -> String {
        self.published.as_ref().map(range_text).unwrap_or_default()
    }

    /// The port of the host that both want.
    fn clash(&self, other: &Self) -> Option<u16> {
        // Of several ports the daemon takes one that is free.
        let single =
            |port: &Self| port.published.clone().filter(|range| range.len() == 1).map(|range| *range.start());
        let same_address = self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip;
        single(self)
            .filter(|at| single(other) == Some(*at) && self.protocol == other.protocol && same_address)
    }

    /// How many ports of the host it takes at most.
    fn count(&self) -> usize {
        self.published.as_ref().map_or(1, ExactSizeIterator::len)
    }
}

fn service_port(port: &Publish) -> Value {
    let mut value = json!({
        "Protocol": port.protocol,
        "TargetPort": port.target,
        "PublishMode": port.mode.unwrap_or(Mode::Ingress).name(),
    });
    if let Some(range) = &port.published {
        value["PublishedPort"] = json!(range.start());
    }
    if let Some(ip) = port.host_ip {
        value["HostIP"] = json!(ip);
    }
    value
}

fn all(texts: &[String]) -> Result<Vec<Publish>> {
    let mut ports = Vec::new();
    let mut count = 0;
    for text in texts {
        let parsed = parse(text)?;
        count += parsed.iter().map(Publish::count).sum::<usize>();
        if count > PORTS_MAX {
            bail!("--publish {text}: more than {PORTS_MAX} ports are published; publish fewer");
        }
        ports.extend(parsed);
    }
    Ok(ports)
}

/// # Errors
/// A port of the host is there twice.
fn check(ports: &[Publish]) -> Result<()> {
    for (at, port) in ports.iter().enumerate() {
        if let Some(taken) = ports[..at].iter().find_map(|other| port.clash(other)) {
            bail!("--publish: port {taken}/{} is published twice; name it once", port.protocol);
        }
    }
    Ok(())
}

fn short(text: &str) -> Result<Vec<Publish>> {
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (outside, target) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, published) = outside.rsplit_once(':').unwrap_or(("", outside));
    let host_ip = if ip.is_empty() { None } else { Some(address(ip)?) };
    let (targets, published) = (target_range(target)?, published_range(published)?);
    let (count, protocol) = (targets.len(), self::protocol(protocol)?);
    let pairs: Vec<_> = match published {
        None => targets.map(|target| (target, None)).collect(),
        Some(range) if range.len() == count => {
            targets.zip(range).map(|(target, at)| (target, Some(at..=at))).collect()
        }
        Some(range) if count == 1 => vec![(*targets.start(), Some(range))],
        Some(range) => bail!(
            "invalid ranges specified for container and host ports: {} and {}; they have to be of one length",
            range_text(&targets),
            range_text(&range)
        ),
    };
    let port = |(target, published)| Publish { host_ip, published, target, protocol, mode: None };
    Ok(pairs.into_iter().map(port).collect())
}

fn long(text: &str) -> Result<Vec<Publish>> {
    let mut port = Publish { host_ip: None, published: None, target: 0, protocol: "tcp", mode: None };
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| anyhow!("invalid field: {field}; it has to have the form KEY=VALUE"))?;
        match key.trim() {
            "target" => port.target = *single(target_range(value)?)?.start(),
            "published" => port.published = published_range(value)?.map(single).transpose()?,
            "protocol" => port.protocol = protocol(value)?,
            "mode" => port.mode = Some(mode(value)?),
            "host_ip" => port.host_ip = Some(address(value)?),
            // C-33: which of the two was meant is not guessed.
            key @ "port" => bail!(
                "invalid field key: {key}; use target= for the port of the container and published= for the port outside"
            ),
            key => bail!("invalid field key: {key}; known are target, published, protocol, mode and host_ip"),
        }
    }
    if port.target == 0 {
        bail!("missing mandatory field \"target\", the port of the container");
    }
    Ok(vec![port])
}

fn address(text: &str) -> Result<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse().map_err(|_| anyhow!("invalid IP address: {text}"))
}

/// The name of a protocol in small letters.
///
/// # Errors
/// There is no such protocol.
pub fn protocol(text: &str) -> Result<&'static str> {
    let known = ["tcp", "udp", "sctp"].into_iter().find(|known| known.eq_ignore_ascii_case(text));
    known.ok_or_else(|| anyhow!("invalid protocol '{text}': it has to be tcp, udp or sctp"))
}

fn mode(text: &str) -> Result<Mode> {
    let known = [Mode::Ingress, Mode::Host].into_iter().find(|mode| mode.name() == text);
    known.ok_or_else(|| anyhow!("invalid publish mode '{text}': it has to be ingress or host"))
}

fn target_range(text: &str) -> Result<RangeInclusive<u16>> {
    let range = range(text)?;
    if *range.start() == 0 {
        bail!("invalid container port '{text}': a port is a number from 1 to 65535");
    }
    Ok(range)
}

/// `None` where nothing or 0 is said: one that is free.
fn published_range(text: &str) -> Result<Option<RangeInclusive<u16>>> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let range = range(text)?;
    if *range.start() == 0 {
        bail!("invalid port range '{text}': a range starts with 1 or more");
    }
    Ok(Some(range))
}

fn single(range: RangeInclusive<u16>) -> Result<RangeInclusive<u16>> {
    if range.len() != 1 {
        bail!("{} is a range; ranges have the short form, such as 8000-8010:80-90", range_text(&range));
    }
    Ok(range)
}

fn range(text: &str) -> Result<RangeInclusive<u16>> {
    let number = |part: &str| {
        part.parse::<u16>().map_err(|_| anyhow!("invalid port '{part}': a port is a number from 1 to 65535"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        bail!("invalid port range '{text}': it ends before it starts");
    }
    Ok(first..=last)
}

fn range_text(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(words: &[&str]) -> Result<Value> {
        of_service(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).map(Value::Array)
    }

    fn error(words: &[&str]) -> String {
        format!("{:#}", service(words).unwrap_err())
    }

    fn ingress(protocol: &str, target: u16, published: u16) -> Value {
        json!({"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress"})
    }

    /// PRT-01, PRT-02, PRT-07
    #[test]
    fn the_short_form_is_dockers() {
        assert_eq!(service(&["8080:80"]).unwrap(), json!([ingress("tcp", 80, 8080)]));
        let both = json!([ingress("tcp", 53, 53), ingress("udp", 53, 53)]);
        assert_eq!(service(&["53:53", "53:53/UDP"]).unwrap(), both);
        let free = json!([{"Protocol": "sctp", "TargetPort": 80, "PublishMode": "ingress"}]);
        for word in ["80/sctp", ":80/sctp", "0:80/sctp"] {
            assert_eq!(service(&[word]).unwrap(), free, "{word}");
        }
    }

    #[test]
    fn ranges_go_pairwise_or_to_one_port() {
        let pairs = json!([ingress("tcp", 80, 8000), ingress("tcp", 81, 8001)]);
        assert_eq!(service(&["8000-8001:80-81"]).unwrap(), pairs);
        let one = json!([ingress("tcp", 80, 8000), ingress("tcp", 80, 8001)]);
        assert_eq!(service(&["8000-8001:80"]).unwrap(), one);
        assert_eq!(service(&["80-89"]).unwrap().as_array().unwrap().len(), 10);
    }

    /// moby#26696
    #[test]
    fn an_address_of_the_host_is_kept() {
        for (word, ip) in [("127.0.0.1:8080:80", "127.0.0.1"), ("[::1]:8080:80", "::1")] {
            let mut port = ingress("tcp", 80, 8080);
            port["HostIP"] = json!(ip);
            assert_eq!(service(&[word]).unwrap(), json!([port]));
        }
        let free = service(&["127.0.0.1::80"]).unwrap();
        assert_eq!((&free[0]["HostIP"], &free[0]["PublishedPort"]), (&json!("127.0.0.1"), &Value::Null));
        assert!(error(&["300.0.0.1:8080:80"]).contains("invalid IP address: 300.0.0.1"));
    }

    /// PRT-06, PRT-08
    #[test]
    fn the_long_form_says_each_part_by_name() {
        let long = "published=5353,target=53,protocol=udp,mode=host";
        let expected =
            json!([{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"}]);
        assert_eq!(service(&[long]).unwrap(), expected);
        assert_eq!(service(&["target=80,published=8080"]).unwrap(), json!([ingress("tcp", 80, 8080)]));
        assert!(error(&["published=80"]).contains("missing mandatory field \"target\""));
        assert!(error(&["target=80,mode=all"]).contains("it has to be ingress or host"));
        assert!(error(&["target=80-81"]).contains("ranges have the short form"));
    }

    /// C-33
    #[test]
    fn port_is_no_key_and_the_error_names_both() {
        let error = error(&["target=8080,port=80"]);
        for part in ["--publish target=8080,port=80: invalid field key: port", "target=", "published="] {
            assert!(error.contains(part), "{error}");
        }
    }

    /// PRT-11
    #[test]
    fn what_is_out_of_bounds_has_one_clear_error() {
        for (word, part) in [
            ("8080:0", "invalid container port '0'"),
            ("65536:80", "invalid port '65536': a port is a number from 1 to 65535"),
            ("80:65536", "invalid port '65536'"),
            ("-1:80", "invalid port ''"),
            ("", "invalid port ''"),
            ("8001-8000:80-81", "it ends before it starts"),
            ("0-5:80", "a range starts with 1"),
            ("8000-8010:80-81", "container and host ports: 80-81 and 8000-8010"),
            ("80/icmp", "invalid protocol 'icmp': it has to be tcp, udp or sctp"),
            ("1-2000:80", "more than 1024 ports"),
            ("1-65535", "more than 1024 ports"),
        ] {
            let error = error(&[word]);
            assert!(error.starts_with(&format!("--publish {word}: ")) && error.contains(part), "{error}");
        }
        assert_eq!(service(&["1-1000:1-1000"]).unwrap().as_array().unwrap().len(), 1000);
        assert_eq!(
            error(&["8080:80", "8080:81"]),
            "--publish: port 8080/tcp is published twice; name it once"
        );
        assert!(error(&["8000-8005:80", "8003:81"]).contains("port 8003/tcp is published twice"));
        assert!(error(&["8080:80", "127.0.0.1:8080:81"]).contains("port 8080/tcp is published twice"));
        assert!(service(&["10.0.0.1:8080:80", "8080:80/udp", "127.0.0.1:8080:80"]).is_ok());
    }

    /// CTR-03
    #[test]
    fn exposed_ports_are_read_as_published_ones() {
        let read = |words: &[&str]| exposed(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["80", "90-91/UDP"]).unwrap(), ["80/tcp", "90/udp", "91/udp"]);
        for wrong in ["", "0", "65536", "9-8", "80/icmp", "1-2000", "8080:80"] {
            let error = format!("{:#}", read(&[wrong]).unwrap_err());
            assert!(error.starts_with(&format!("--expose {wrong}: ")), "{error}");
        }
    }

    #[test]
    fn a_container_binds_ports_of_its_host() {
        let words = ["8080:80", "127.0.0.1:53:53/udp", "9000-9005:90", "80"].map(str::to_owned);
        let (exposed, bindings) = of_container(&words).unwrap();
        assert_eq!(exposed, json!({"80/tcp": {}, "53/udp": {}, "90/tcp": {}}));
        let expected = json!({
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "", "HostPort": ""}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
            "90/tcp": [{"HostIp": "", "HostPort": "9000-9005"}],
        });
        assert_eq!(bindings, expected);
        assert!(of_container(&["target=80,mode=ingress".to_owned()]).is_err());
    }
}
