//! `net doctor`: every host and network, problems first.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::{Context, Result};
use serde_json::value::RawValue;

use crate::{
    client::{
        Client, Target,
        model::{Finding, Severity},
    },
    command::{Exit, FAILED, json, table::Table, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// Also what is as it should be
    #[arg(short, long)]
    verbose: bool,
    /// All findings, as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args, client: &Client) -> Result<()> {
    let found: Vec<Box<RawValue>> = client.get(Target::new(&["covey", "net", "doctor"])).await?;
    let findings = found.iter().map(|value| serde_json::from_str(value.get())).collect::<Result<Vec<_>, _>>();
    let mut findings: Vec<Finding> = findings.context("a finding of the daemon cannot be understood")?;
    if args.json {
        terminal::say(json::list(&found))?;
    } else {
        findings.sort_by(|a, b| place(a).cmp(&place(b)));
        terminal::print(&text(&findings, args.verbose))?;
    }
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Wrong);
    if wrong { Err(Exit(FAILED).into()) } else { Ok(()) }
}

/// The host as a whole stands before its networks.
fn place(finding: &Finding) -> (&str, &str, std::cmp::Reverse<Severity>, &str) {
    (&finding.host, &finding.network, std::cmp::Reverse(finding.severity), &finding.object)
}

/// `findings` are in the order of their places.
fn text(findings: &[Finding], verbose: bool) -> String {
    let mut groups: Vec<_> =
        findings.chunk_by(|a, b| (&a.host, &a.network) == (&b.host, &b.network)).collect();
    // The worst of a group stands first in it.
    groups.sort_by_key(|group| std::cmp::Reverse(group.first().map(|finding| finding.severity)));
    let mut out = String::new();
    for group in groups {
        let Some(Finding { host, network, .. }) = group.first() else { continue };
        let title = if network.is_empty() { host.clone() } else { format!("{host}, network {network}") };
        let _ = writeln!(out, "{title}: {}", counts(group));
        let mut shown = group.iter().filter(|finding| verbose || finding.severity != Severity::Ok).peekable();
        if shown.peek().is_some() {
            let mut table = Table::new(["STATE", "OBJECT", "FINDING"]);
            shown.for_each(|found| {
                table.row([found.severity.name().to_owned(), found.object.clone(), found.text.clone()]);
            });
            table.text().lines().for_each(|line| _ = writeln!(out, "  {line}"));
            out.push('\n');
        }
    }
    out + &summary(findings)
}

/// `1 wrong, 14 ok`
fn counts(findings: &[Finding]) -> String {
    let of = |severity: Severity| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        (count > 0).then(|| format!("{count} {}", severity.name()))
    };
    let parts = [Severity::Wrong, Severity::Repaired, Severity::Ok].into_iter().filter_map(of);
    parts.collect::<Vec<_>>().join(", ")
}

fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "Nothing to examine: this node is in no cluster and carries no network.\n".to_owned();
    }
    let names = |name: fn(&Finding) -> &str| {
        findings.iter().map(name).filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().len()
    };
    let number = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let hosts = number(names(|finding| &finding.host), "host");
    let networks = number(names(|finding| &finding.network), "network");
    format!("{hosts}, {networks}: {}\n", counts(findings))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    fn finding(host: &str, network: &str, object: &str, severity: &str, text: &str) -> Value {
        json!({"Host": host, "Network": network, "Object": object, "Severity": severity, "Text": text})
    }

    fn shown(mut found: Vec<Value>, verbose: bool) -> String {
        found.reverse();
        let mut findings: Vec<Finding> = serde_json::from_value(found.into()).unwrap();
        findings.sort_by(|a, b| place(a).cmp(&place(b)));
        text(&findings, verbose)
    }

    #[test]
    fn problems_stand_first_and_what_is_well_is_counted() {
        let found = vec![
            finding("m1", "", "data path to m2", "ok", "1450 bytes pass"),
            finding("m1", "front", "link cvx4097", "ok", "as wanted"),
            finding("m1", "front", "mtu", "repaired", "was 1500, is 1450"),
            finding("m2", "front", "fdb 02:fd:00:00:00:02", "wrong", "leads to 10.0.0.3, wanted is 10.0.0.1"),
            finding("m2", "front", "mtu", "ok", "1450"),
        ];
        let expected = "\
m2, network front: 1 wrong, 1 ok
  STATE     OBJECT                  FINDING
  wrong     fdb 02:fd:00:00:00:02   leads to 10.0.0.3, wanted is 10.0.0.1

m1, network front: 1 repaired, 1 ok
  STATE      OBJECT    FINDING
  repaired   mtu       was 1500, is 1450

m1: 1 ok
2 hosts, 1 network: 1 wrong, 1 repaired, 3 ok
";
        assert_eq!(shown(found.clone(), false), expected);
        assert!(shown(found, true).contains("ok        data path to m2   1450 bytes pass\n"));
        assert!(shown(Vec::new(), false).starts_with("Nothing to examine"));
    }

    #[tokio::test]
    async fn only_what_is_wrong_fails() {
        for (severity, code) in [("wrong", Some(1)), ("repaired", None), ("ok", None)] {
            let found = json!([finding("m1", "", "mtu", severity, "")]);
            let daemon = Daemon::start([("GET /covey/net/doctor", Reply::Json(found))]);
            for json in [false, true] {
                let done = run(&Args { verbose: false, json }, &daemon.client()).await;
                assert_eq!(done.err().map(|error| error.downcast::<Exit>().unwrap().0), code);
            }
        }
    }
}
