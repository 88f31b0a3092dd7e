//! How it is found out whether a container is well: `--health-cmd` and the like, of containers and of services (TSK-14).

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::quantity::{Nanos, duration_text};

#[derive(clap::Args, Default)]
pub struct HealthOptions {
    /// A line for the shell in the container that ends with 0 if it is well, in the place of the image's check
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, help_heading = "Health")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_interval: Option<Nanos>,
    /// A check that takes longer has failed [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_timeout: Option<Nanos>,
    /// So many failures, one after the other, mean that it is not well [default: 3]
    #[arg(long, value_name = "NUMBER", help_heading = "Health")]
    health_retries: Option<u32>,
    /// Time to start, in which failures do not count
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_start_period: Option<Nanos>,
    /// Time between two checks while it starts [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    health_start_interval: Option<Nanos>,
    /// No check, whatever the image says
    #[arg(long, help_heading = "Health")]
    no_healthcheck: bool,
}

impl HealthOptions {
    /// The check `old` with those that were given; all else stays. `None`: none was given.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn changed(&self, old: &Value) -> Result<Option<Value>> {
        let nanos = |time: Option<Nanos>| time.map(|nanos| json!(nanos.0));
        let test = self.health_cmd.as_ref().map(|line| match line.as_str() {
            // As the image says.
            "" => json!([]),
            line => json!(["CMD-SHELL", line]),
        });
        let given = [
            ("Test", test),
            ("Interval", nanos(self.health_interval)),
            ("Timeout", nanos(self.health_timeout)),
            ("Retries", self.health_retries.map(|number| json!(number))),
            ("StartPeriod", nanos(self.health_start_period)),
            ("StartInterval", nanos(self.health_start_interval)),
        ];
        let given: Vec<_> = given.into_iter().filter_map(|(field, value)| Some((field, value?))).collect();
        let none = json!({"Test": ["NONE"]});
        if self.no_healthcheck {
            if !given.is_empty() {
                bail!("--no-healthcheck conflicts with --health-* options");
            }
            return Ok(Some(none));
        }
        if given.is_empty() {
            return Ok(None);
        }
        let mut check = old.clone();
        if check["Test"] == none["Test"] {
            check["Test"] = json!([]);
        }
        for (field, value) in given {
            check[field] = value;
        }
        Ok(Some(check))
    }
}

/// A check for people: what is said of it and how; empty where there is none.
pub fn lines(check: &Value) -> Vec<(&'static str, String)> {
    let words: Vec<_> = check["Test"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let test = match words[..] {
        [] => None,
        ["NONE"] => Some("none".to_owned()),
        [_, ref command @ ..] => Some(command.join(" ")),
    };
    let number = |field: &str| check[field].as_i64().filter(|number| *number != 0);
    let time = |field: &str| number(field).map(duration_text);
    let said = [
        ("Test", test),
        ("Interval", time("Interval")),
        ("Timeout", time("Timeout")),
        ("Retries", number("Retries").map(|number| number.to_string())),
        ("Start period", time("StartPeriod")),
        ("Start interval", time("StartInterval")),
    ];
    said.into_iter().filter_map(|(title, text)| Some((title, text?))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: HealthOptions,
    }

    fn changed(words: &[&str], old: Value) -> Result<Option<Value>> {
        Line::parse_from([&["x"], words].concat()).options.changed(&old)
    }

    /// TSK-14
    #[test]
    fn each_option_of_a_health_check_has_its_place() {
        let words = [
            "--health-cmd=-f || exit 1",
            "--health-interval=10s",
            "--health-timeout=1m",
            "--health-retries=4",
            "--health-start-period=2s",
            "--health-start-interval=500ms",
        ];
        let check = json!({"Test": ["CMD-SHELL", "-f || exit 1"], "Interval": 10_000_000_000_i64,
            "Timeout": 60_000_000_000_i64, "Retries": 4, "StartPeriod": 2_000_000_000, "StartInterval": 500_000_000});
        assert_eq!(changed(&words, Value::Null).unwrap(), Some(check.clone()));
        let shown = [
            ("Test", "-f || exit 1"),
            ("Interval", "10s"),
            ("Timeout", "1m0s"),
            ("Retries", "4"),
            ("Start period", "2s"),
            ("Start interval", "500ms"),
        ];
        assert_eq!(lines(&check), shown.map(|(title, text)| (title, text.to_owned())));
    }

    /// TSK-14, SVC-47
    #[test]
    fn what_is_not_said_of_a_health_check_stays_as_it_was() {
        let old = json!({"Test": ["CMD", "a"], "Retries": 2, "New": 1});
        assert_eq!(changed(&[], old.clone()).unwrap(), None);
        let expected = json!({"Test": ["CMD", "a"], "Retries": 5, "New": 1});
        assert_eq!(changed(&["--health-retries=5"], old.clone()).unwrap(), Some(expected));
        let images = json!({"Test": [], "Retries": 2, "New": 1});
        assert_eq!(changed(&["--health-cmd="], old).unwrap(), Some(images), "the image's command");
    }

    /// TSK-14
    #[test]
    fn a_health_check_is_taken_away_and_comes_back() {
        let none = json!({"Test": ["NONE"]});
        let old = json!({"Test": ["CMD", "a"], "Retries": 2});
        assert_eq!(changed(&["--no-healthcheck"], old).unwrap(), Some(none.clone()));
        assert_eq!(lines(&none), [("Test", "none".to_owned())]);
        let back = json!({"Test": [], "Interval": 1_000_000_000});
        assert_eq!(changed(&["--health-interval=1s"], none).unwrap(), Some(back));
        let error = changed(&["--no-healthcheck", "--health-retries=1"], Value::Null).unwrap_err();
        assert_eq!(error.to_string(), "--no-healthcheck conflicts with --health-* options");
        assert!(Line::try_parse_from(["x", "--health-timeout=-1s"]).is_err());
    }
}
