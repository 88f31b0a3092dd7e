//! What Docker has no word for: the networks examined, and the way of a packet. For Covey's own client.

use axum::{Json, Router, extract::State, routing::get};
use covey_state::network::Protocol;

use crate::{
    app::App,
    control::{Finding, Hop, PathRequest},
    failure::Failure,
    params::Params,
    wire::covey as wire,
};

pub fn routes() -> Router<App> {
    Router::new().route("/covey/net/doctor", get(doctor)).route("/covey/net/path", get(path))
}

async fn doctor(State(app): State<App>) -> Result<Json<Vec<wire::Finding>>, Failure> {
    let to_wire = |finding: Finding| wire::Finding {
        host: finding.host,
        network: finding.network,
        object: finding.object,
        severity: finding.severity.as_str(),
        text: finding.text,
    };
    Ok(Json(app.control.doctor().await?.into_iter().map(to_wire).collect()))
}

/// `from` is a container, `to` a `name:port[/protocol]`.
async fn path(State(app): State<App>, params: Params) -> Result<Json<Vec<wire::Hop>>, Failure> {
    let from = params.text("from").trim_start_matches('/').to_owned();
    if from.is_empty() {
        return Err(Failure::invalid("from: the container where the way begins is needed"));
    }
    let (to, port, protocol) = target(params.text("to"))?;
    let hops = app.control.path(PathRequest { from, to, port, protocol }).await?;
    let to_wire = |hop: Hop| wire::Hop {
        step: hop.step,
        decision: hop.decision,
        counter_before: hop.packets.map(|(before, _)| before),
        counter_after: hop.packets.map(|(_, after)| after),
    };
    Ok(Json(hops.into_iter().map(to_wire).collect()))
}

/// `web:80`, `web:53/udp`, `[fd00::1]:80`.
fn target(text: &str) -> Result<(String, u16, Protocol), Failure> {
    let wrong = || Failure::invalid(format!("to: {text:?} is not of the form NAME:PORT[/PROTOCOL]"));
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, name)) => (rest, name.parse().map_err(|_| wrong())?),
        None => (text, Protocol::Tcp),
    };
    let (name, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_owned(), port, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_name_and_a_port() {
        let read = |text: &str| target(text).ok();
        assert_eq!(read("web:80"), Some(("web".into(), 80, Protocol::Tcp)));
        assert_eq!(read("dns.net:53/udp"), Some(("dns.net".into(), 53, Protocol::Udp)));
        assert_eq!(read("[fd00::1]:443"), Some(("fd00::1".into(), 443, Protocol::Tcp)));
        for wrong in ["", "web", ":80", "web:", "web:0", "web:65536", "web:80/icmp", "[]:80"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
