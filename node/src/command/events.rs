//! `events`: what happens to containers, images, networks, services and nodes.

use anyhow::Result;
use time::OffsetDateTime;

use super::{moment, options, terminal};
use crate::client::{Client, Target, lines::Lines, model::Event};

#[derive(clap::Args)]
pub struct Args {
    /// Also what happened since then: RFC 3339, seconds since 1970, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those that match, such as type=service (repeatable)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let time =
        |text: &Option<String>| text.as_deref().map(|text| moment::parse(text, moment::now())).transpose();
    let filters = args.filters.iter().map(|text| options::filter(text)).collect::<Result<Vec<_>>>()?;
    let target = Target::new(&["events"])
        .with_some("since", time(&args.since)?)
        .with_some("until", time(&args.until)?)
        .with_filters(&filters);
    let mut lines = Lines::new(client.stream(target).await?);
    while let Some(event) = lines.next::<Event>().await? {
        terminal::say(text(&event))?;
    }
    Ok(())
}

fn text(event: &Event) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z"
    );
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.time_nano))
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_default();
    let attributes: Vec<_> =
        event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{time} {} {} {}{attributes}", event.kind, event.action, event.actor.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: Event = serde_json::from_str(
            r#"{"Type":"service","Action":"update","Actor":{"ID":"9uk4","Attributes":{"name":"web","replicas.new":"3"}},
                "scope":"swarm","time":1,"timeNano":1500000000}"#,
        )
        .unwrap();
        assert_eq!(
            text(&event),
            "1970-01-01T00:00:01.500000000Z service update 9uk4 (name=web, replicas.new=3)"
        );
    }
}
