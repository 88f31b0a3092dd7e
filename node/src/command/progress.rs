//! Progress of pulls and loads: bars on a terminal, one line a change elsewhere.

use std::{collections::BTreeMap, io};

use anyhow::{Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::terminal;
use crate::client::{
    Reply,
    lines::Lines,
    model::{Progress, ProgressDetail},
};

/// Layers that are shown at once; more than these are shown when the first ones are done.
const BARS_MAX: usize = 128;

/// Where the lines that stay go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output: they are what the command says.
    Output,
    /// Standard error: the output belongs to a container.
    Error,
    /// Nowhere: only a failure is told.
    Quiet,
}

/// Shows the progress of a long work until its end; gives its last line.
///
/// # Errors
/// The daemon says that it failed, or the stream broke off.
pub async fn show(reply: Reply, sink: Sink) -> Result<String> {
    let mut lines = Lines::new(reply);
    let mut view = View::new(sink);
    let mut last = String::new();
    while let Some(step) = lines.next::<Progress>().await? {
        if !step.error.is_empty() {
            view.finish();
            bail!("Error response from daemon: {}", step.error);
        }
        view.step(&step)?;
        last = if step.stream.is_empty() { step.status } else { step.stream.trim_end().to_owned() };
    }
    view.finish();
    Ok(last)
}

enum View {
    Bars { sink: Sink, all: MultiProgress, by_id: BTreeMap<String, ProgressBar> },
    Plain(Sink),
}

impl View {
    fn new(sink: Sink) -> Self {
        if sink == Sink::Quiet || !terminal::is_watched() {
            return Self::Plain(sink);
        }
        Self::Bars { sink, all: MultiProgress::new(), by_id: BTreeMap::new() }
    }

    fn step(&mut self, step: &Progress) -> io::Result<()> {
        match self {
            Self::Plain(sink) => plain_line(step).map_or(Ok(()), |line| write(*sink, &line)),
            // The first line of a pull has the tag in the place of a layer.
            Self::Bars { sink, all, .. } if !is_part(step) => {
                let line = plain_line(step).unwrap_or_default();
                all.suspend(|| write(*sink, &line))
            }
            Self::Bars { all, by_id, .. } => {
                if by_id.len() < BARS_MAX || by_id.contains_key(&step.id) {
                    let bar = by_id.entry(step.id.clone()).or_insert_with(|| {
                        all.add(ProgressBar::no_length().with_prefix(step.id.clone()).with_style(idle()))
                    });
                    draw(bar, step);
                }
                Ok(())
            }
        }
    }

    /// Leaves the bars as they are.
    fn finish(&mut self) {
        if let Self::Bars { by_id, .. } = self {
            by_id.values().for_each(ProgressBar::abandon);
        }
    }
}

/// True for what is about one layer.
fn is_part(step: &Progress) -> bool {
    !step.id.is_empty() && !step.status.starts_with("Pulling from")
}

/// The line that stays: everything but the steps on the way (CTR-02).
fn plain_line(step: &Progress) -> Option<String> {
    if step.detail != ProgressDetail::default() {
        return None;
    }
    let text = if step.stream.is_empty() { &step.status } else { &step.stream };
    let text = text.trim_end();
    match (step.id.as_str(), text) {
        (_, "") => None,
        ("", text) => Some(text.to_owned()),
        (id, text) => Some(format!("{id}: {text}")),
    }
}

fn write(sink: Sink, line: &str) -> io::Result<()> {
    match sink {
        Sink::Output => terminal::say(line),
        Sink::Error => {
            terminal::complain(line);
            Ok(())
        }
        Sink::Quiet => Ok(()),
    }
}

fn draw(bar: &ProgressBar, step: &Progress) {
    bar.set_message(step.status.clone());
    match step.detail {
        ProgressDetail { current: Some(current), total: Some(total) } if total > 0 => {
            bar.set_style(busy());
            bar.set_length(total);
            bar.set_position(current);
        }
        _ => bar.set_style(idle()),
    }
    bar.tick();
}

fn busy() -> ProgressStyle {
    style("{prefix}: {msg:20} [{bar:40.cyan}] {decimal_bytes}/{decimal_total_bytes}").progress_chars("=> ")
}

fn idle() -> ProgressStyle {
    style("{prefix}: {msg}")
}

/// The style of a bar; a template is a constant of ours, and where it were wrong the default would show.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> Option<String> {
        plain_line(&serde_json::from_str(json).unwrap())
    }

    /// CTR-02
    #[test]
    fn only_what_stays_is_a_line() {
        assert_eq!(
            line(r#"{"status":"Pulling from library/alpine","id":"latest"}"#).unwrap(),
            "latest: Pulling from library/alpine"
        );
        let on_the_way = r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"ab"}"#;
        assert_eq!(line(on_the_way), None);
        let done = r#"{"status":"Pull complete","progressDetail":{},"id":"ab"}"#;
        assert_eq!(line(done).unwrap(), "ab: Pull complete");
        assert_eq!(line(r#"{"status":"Digest: sha256:1"}"#).unwrap(), "Digest: sha256:1");
        assert_eq!(line(r#"{"stream":"Loaded image: a:1\n"}"#).unwrap(), "Loaded image: a:1");
        assert_eq!(line("{}"), None);
    }

    #[test]
    fn the_templates_are_well_formed() {
        for template in
            ["{prefix}: {msg:20} [{bar:40.cyan}] {decimal_bytes}/{decimal_total_bytes}", "{prefix}: {msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[tokio::test]
    async fn a_failure_in_the_stream_is_an_error() {
        let text = "{\"status\":\"Pulling\"}\r\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n";
        let error = show(Box::new(text.as_bytes()), Sink::Quiet).await.unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: no");
        let last = show(Box::new(&b"{\"status\":\"a\"}\n{\"status\":\"sha256:1\"}\n"[..]), Sink::Quiet)
            .await
            .unwrap();
        assert_eq!(last, "sha256:1");
    }
}
