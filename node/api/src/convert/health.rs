//! Health checks, of services and of plain containers.

use std::time::Duration;

use covey_state::container::{Health, HealthCheck, HealthCheckError};

use super::amount;
use crate::{
    failure::Failure,
    wire::{Time, health as wire, nanos},
};

/// The check of a request.
pub fn from_wire(config: wire::HealthConfig) -> Result<HealthCheck, Failure> {
    // What is negative is too short as well.
    let time = |nanos: i64, what| u64::try_from(nanos).map_err(|_| HealthCheckError::Time(what));
    let check = HealthCheck {
        test: config.test,
        interval: Duration::from_nanos(time(config.interval, "Interval")?),
        timeout: Duration::from_nanos(time(config.timeout, "Timeout")?),
        start_period: Duration::from_nanos(time(config.start_period, "StartPeriod")?),
        start_interval: Duration::from_nanos(time(config.start_interval, "StartInterval")?),
        retries: u32::try_from(amount(config.retries, "Retries in Healthcheck")?).unwrap_or(u32::MAX),
    };
    check.check()?;
    Ok(check)
}

/// As the Engine API writes it.
pub fn to_wire(check: &HealthCheck) -> wire::HealthConfig {
    wire::HealthConfig {
        test: check.test.clone(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: check.retries.into(),
    }
}

/// What was found, as the Engine API writes it.
pub fn state(health: &Health) -> wire::Health {
    let checked = health.log.iter().map(|checked| wire::Checked {
        start: Time(checked.start),
        end: Time(checked.end),
        exit_code: checked.exit_code,
        output: checked.output.clone(),
    });
    wire::Health {
        status: health.status.as_str(),
        failing_streak: health.failing_streak,
        log: checked.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(config: Value) -> Result<HealthCheck, String> {
        from_wire(serde_json::from_value(config).unwrap()).map_err(|failure| failure.message)
    }

    /// TSK-14
    #[test]
    fn a_health_check_reads_back() {
        for config in [
            json!({}),
            json!({"Test": ["NONE"]}),
            json!({"Test": ["CMD-SHELL", "wget -q localhost || exit 1"], "Interval": 1_000_000_000, "Timeout": 2_000_000,
                "StartPeriod": 3_000_000_001_i64, "StartInterval": 1_000_000, "Retries": 4}),
        ] {
            let check = read(config.clone()).unwrap();
            assert_eq!(json!(to_wire(&check)), config);
        }
    }

    /// TSK-14
    #[test]
    fn a_health_check_that_cannot_be_is_refused_with_one_sentence() {
        for (config, message) in [
            (
                json!({"Test": ["RUN", "x"]}),
                "Unknown type 'RUN' in healthcheck (want NONE, CMD or CMD-SHELL)",
            ),
            (json!({"Test": ["CMD"]}), "the test of Healthcheck has no command"),
            (json!({"Interval": -1}), "Interval in Healthcheck cannot be less than one millisecond"),
            (json!({"Timeout": 999_999}), "Timeout in Healthcheck cannot be less than one millisecond"),
            (json!({"StartPeriod": -1}), "StartPeriod in Healthcheck cannot be less than one millisecond"),
            (json!({"StartInterval": 1}), "StartInterval in Healthcheck cannot be less than one millisecond"),
            (json!({"Retries": -1}), "invalid Retries in Healthcheck: it is negative"),
        ] {
            assert_eq!(read(config), Err(message.to_owned()));
        }
        assert_eq!(read(json!({"Retries": 1_i64 << 40})).unwrap().retries, u32::MAX);
    }
}
