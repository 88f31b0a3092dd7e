//! What a container uses, once or every second.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    response::Response,
};
use futures_util::stream;
use serde_json::{Value, json};

use crate::{
    app::App,
    engine::{Container, Stats},
    failure::Failure,
    params::Params,
    stream::lines,
    wire::Time,
};

const INTERVAL: Duration = Duration::from_secs(1);

/// A client reckons the load of the CPU from two readings: each value carries the one before it, and even a single
/// value waits for a second reading, unless `one-shot` says that it need not.
pub async fn stats(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let container = app.engine.container(reference.trim_start_matches('/')).await?;
    let mut first = app.engine.stats(&container.id).await?;
    if !params.flag_unless_off("stream") {
        let mut before = Stats::default();
        if !params.flag("one-shot") {
            tokio::time::sleep(INTERVAL).await;
            before = std::mem::replace(&mut first, app.engine.stats(&container.id).await?);
        }
        let value = reading(&app, &container, &before, &first);
        return Ok(lines::reply(stream::iter([value])));
    }
    let start = (app, container, Stats::default(), Some(first));
    Ok(lines::reply(stream::unfold(start, |(app, container, before, reading_now)| async move {
        let now = match reading_now {
            Some(now) => now,
            None => {
                tokio::time::sleep(INTERVAL).await;
                app.engine.stats(&container.id).await.ok()?
            }
        };
        let value = reading(&app, &container, &before, &now);
        Some((value, (app, container, now, None)))
    })))
}

fn reading(app: &App, container: &Container, before: &Stats, now: &Stats) -> Value {
    json!({
        "id": container.id,
        "name": format!("/{}", container.name),
        "read": Time(now.at),
        "preread": Time::text_or_never((before.at.0 != 0).then_some(before.at)),
        "num_procs": 0,
        "pids_stats": {"current": now.pids},
        "cpu_stats": cpu(app, now),
        "precpu_stats": cpu(app, before),
        "memory_stats": {"usage": now.memory, "limit": now.memory_limit, "stats": {}},
        "blkio_stats": {"io_service_bytes_recursive": [
            {"major": 0, "minor": 0, "op": "read", "value": now.read},
            {"major": 0, "minor": 0, "op": "write", "value": now.written},
        ]},
        "networks": {"eth0": {"rx_bytes": now.received, "tx_bytes": now.sent}},
        "storage_stats": {},
    })
}

fn cpu(app: &App, stats: &Stats) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": stats.cpu,
            "usage_in_kernelmode": stats.cpu_system,
            "usage_in_usermode": stats.cpu.saturating_sub(stats.cpu_system),
        },
        "system_cpu_usage": stats.host_cpu,
        "online_cpus": app.host.cpus,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    })
}
