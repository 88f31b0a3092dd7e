//! What this node counts, for Prometheus.

use std::fmt::{Display, Write as _};

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{app::App, control::DataPlane};

/// Of its text format (prometheus.io/docs/instrumenting/exposition_formats).
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, TEXT)], text(&app.control.data_plane().await)).into_response()
}

fn text(data_plane: &DataPlane) -> String {
    let DataPlane { drift, repairs, networks, endpoints, unconfirmed, refused_ports } = data_plane;
    let mut out = String::new();
    let drift = drift.iter().map(|(kind, count)| (format!("{{object=\"{kind}\"}}"), *count));
    let name = "covey_dataplane_drift_total";
    metric(
        &mut out,
        name,
        "counter",
        "Kernel objects that were found otherwise than wanted, and mended.",
        drift,
    );
    let name = "covey_dataplane_repairs_total";
    metric(&mut out, name, "counter", "Looks at the kernel that mended something.", one(repairs));
    metric(&mut out, "covey_networks", "gauge", "Networks that this node carries.", one(networks));
    metric(
        &mut out,
        "covey_endpoints",
        "gauge",
        "Endpoints in the networks that this node carries.",
        one(endpoints),
    );
    let help = "Endpoints that only the daemon before was told of: they are told anew or forgotten.";
    metric(&mut out, "covey_endpoints_unconfirmed", "gauge", help, one(unconfirmed));
    let help = "Published ports that do not answer on this node: somebody else has them.";
    metric(&mut out, "covey_ports_refused", "gauge", help, one(refused_ports));
    out
}

fn one<T>(value: T) -> [(String, T); 1] {
    [(String::new(), value)]
}

fn metric<T: Display>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl IntoIterator<Item = (String, T)>,
) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let data_plane = DataPlane {
            drift: [("fdb", 2), ("route", 0)].into(),
            repairs: 1,
            networks: 3,
            endpoints: 40,
            unconfirmed: 2,
            refused_ports: 0,
        };
        let lines = text(&data_plane);
        let values: Vec<&str> = lines.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "covey_dataplane_drift_total{object=\"fdb\"} 2",
            "covey_dataplane_drift_total{object=\"route\"} 0",
            "covey_dataplane_repairs_total 1",
            "covey_networks 3",
            "covey_endpoints 40",
            "covey_endpoints_unconfirmed 2",
            "covey_ports_refused 0",
        ];
        assert_eq!(values, expected);
        assert_eq!(lines.matches("# HELP covey_").count(), 6);
        assert!(lines.contains("# TYPE covey_dataplane_drift_total counter\n") && lines.ends_with('\n'));
    }
}
