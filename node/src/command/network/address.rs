//! Which gateway and which range belong to which subnet (NET-12).

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use serde_json::{Value, json};

/// A subnet as the user asked for it.
struct Subnet {
    net: IpNet,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
}

/// One entry for each subnet, as the API has them; a range or a gateway belongs to the subnet that contains it.
///
/// # Errors
/// One is not an address block, two subnets overlap, or a range or gateway is in none of them or is one too many.
pub fn config(subnets: &[String], ranges: &[String], gateways: &[IpAddr]) -> Result<Vec<Value>> {
    if subnets.len() < ranges.len().max(gateways.len()) {
        bail!("every ip-range or gateway must have a corresponding subnet: give it with --subnet");
    }
    let mut all = Vec::<Subnet>::new();
    for text in subnets {
        let net = block("subnet", text)?;
        if all.iter().any(|other| other.net.contains(&net) || net.contains(&other.net)) {
            bail!(
                "multiple overlapping subnet configuration is not supported: {net} overlaps another subnet"
            );
        }
        all.push(Subnet { net, range: None, gateway: None });
    }
    for text in ranges {
        let range = block("ip-range", text)?;
        let Some(subnet) = all.iter_mut().find(|subnet| subnet.net.contains(&range)) else {
            bail!("no matching subnet for range {text}");
        };
        if let Some(other) = subnet.range.replace(range) {
            bail!("cannot configure multiple ranges ({range}, {other}) on the same subnet ({})", subnet.net);
        }
    }
    for gateway in gateways {
        let Some(subnet) = all.iter_mut().find(|subnet| subnet.net.contains(gateway)) else {
            bail!("no matching subnet for gateway {gateway}");
        };
        if let Some(other) = subnet.gateway.replace(*gateway) {
            bail!(
                "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({})",
                subnet.net
            );
        }
    }
    Ok(all.iter().map(entry).collect())
}

fn entry(subnet: &Subnet) -> Value {
    let mut entry = json!({"Subnet": subnet.net});
    if let Some(range) = subnet.range {
        entry["IPRange"] = json!(range);
    }
    if let Some(gateway) = subnet.gateway {
        entry["Gateway"] = json!(gateway);
    }
    entry
}

fn block(what: &str, text: &str) -> Result<IpNet> {
    let example = if text.contains(':') { "fd00:1::/64" } else { "10.1.0.0/16" };
    let net: IpNet = text.parse().map_err(|_| {
        anyhow!(
            "invalid {what} {text}: it has to be an address with the length of its prefix, such as {example}"
        )
    })?;
    if net.trunc() != net {
        bail!("invalid {what} {text}: it has bits behind its prefix; {} is the whole block", net.trunc());
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(subnets: &[&str], ranges: &[&str], gateways: &[&str]) -> Result<Value> {
        let texts = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let gateways: Vec<_> = gateways.iter().map(|text| text.parse().unwrap()).collect();
        config(&texts(subnets), &texts(ranges), &gateways).map(Value::Array)
    }

    /// NET-12
    #[test]
    fn gateways_and_ranges_go_to_the_subnet_that_contains_them() {
        let entries = read(
            &["192.168.0.0/16", "192.170.0.0/16", "fd00:1::/64"],
            &["192.168.1.0/24"],
            &["192.170.0.100", "fd00:1::1", "192.168.0.100"],
        );
        let expected = json!([
            {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
            {"Subnet": "192.170.0.0/16", "Gateway": "192.170.0.100"},
            {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"},
        ]);
        assert_eq!(entries.unwrap(), expected);
        assert_eq!(read(&[], &[], &[]).unwrap(), json!([]));
    }

    /// NET-12, NET-14
    #[test]
    fn what_does_not_match_has_one_clear_error() {
        let error = |subnets: &[&str], ranges: &[&str], gateways: &[&str]| {
            read(subnets, ranges, gateways).unwrap_err().to_string()
        };
        assert_eq!(error(&["10.1.0.0/16"], &[], &["10.2.0.1"]), "no matching subnet for gateway 10.2.0.1");
        assert_eq!(
            error(&["10.1.0.0/16"], &["10.2.0.0/24"], &[]),
            "no matching subnet for range 10.2.0.0/24"
        );
        assert_eq!(
            error(&["10.1.0.0/24"], &["10.1.0.0/16"], &[]),
            "no matching subnet for range 10.1.0.0/16"
        );
        assert!(error(&["10.1.0.0/16", "10.1.2.0/24"], &[], &[]).contains("10.1.2.0/24 overlaps"));
        assert!(error(&["10.1.2.0/24", "10.1.0.0/16"], &[], &[]).contains("10.1.0.0/16 overlaps"));
        assert!(error(&[], &[], &["10.1.0.1"]).starts_with("every ip-range or gateway must have"));
        let two = ["10.1.0.0/16", "10.2.0.0/16"];
        assert!(
            error(&two, &[], &["10.1.0.1", "10.1.0.2"])
                .starts_with("cannot configure multiple gateways (10.1.0.2, 10.1.0.1)")
        );
        assert!(
            error(&two, &["10.1.0.0/24", "10.1.1.0/24"], &[]).starts_with("cannot configure multiple ranges")
        );
        assert!(error(&["fd00::"], &[], &[]).ends_with("with the length of its prefix, such as fd00:1::/64"));
        assert!(error(&["10.1.0.1/16"], &[], &[]).ends_with("10.1.0.0/16 is the whole block"));
    }
}
