//! `network ls` (NET-01, NET-03).

use anyhow::Result;

use crate::{
    client::{Client, Target, model::Network},
    command::{options::Listing, table::Table, terminal},
};

pub async fn run(listing: &Listing, client: &Client) -> Result<()> {
    let target = Target::new(&["networks"]).with_filters(&listing.filters()?);
    let mut networks: Vec<Network> = client.get(target).await?;
    networks.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(terminal::print(&text(&networks, listing))?)
}

fn text(networks: &[Network], listing: &Listing) -> String {
    if listing.quiet {
        return networks.iter().map(|network| listing.id(&network.id) + "\n").collect();
    }
    let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for network in networks {
        let id = listing.id(&network.id);
        table.row([id, network.name.clone(), network.driver.clone(), network.scope.clone()]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    /// NET-01
    #[test]
    fn the_table_has_dockers_columns() {
        let networks: Vec<Network> = serde_json::from_value(json!([
            {"Id": "0123456789abcdef0123", "Name": "bridge", "Driver": "bridge", "Scope": "local"},
            {"Id": "mkileuo6ve329jx5xbd1m6r1o", "Name": "ingress", "Driver": "overlay", "Scope": "swarm"},
        ]))
        .unwrap();
        let expected = "\
NETWORK ID     NAME      DRIVER    SCOPE
0123456789ab   bridge    bridge    local
mkileuo6ve32   ingress   overlay   swarm
";
        assert_eq!(text(&networks, &Listing::default()), expected);
        let whole = Listing { quiet: true, no_trunc: true, ..Listing::default() };
        assert_eq!(text(&networks, &whole), "0123456789abcdef0123\nmkileuo6ve329jx5xbd1m6r1o\n");
    }

    /// NET-03
    #[tokio::test]
    async fn filters_are_the_daemons() {
        let daemon = Daemon::start([("GET /networks", Reply::Json(json!([])))]);
        let listing = Listing { filters: vec!["driver=overlay".into()], ..Listing::default() };
        run(&listing, &daemon.client()).await.unwrap();
        let filters = "%7B%22driver%22%3A%7B%22overlay%22%3Atrue%7D%7D";
        assert_eq!(daemon.asked()[0].0, format!("GET /networks?filters={filters}"));
    }
}
