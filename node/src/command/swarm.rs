//! `swarm`: make, join and leave a cluster.

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    quantity::Nanos,
    terminal::{print, say},
};
use crate::client::{Client, Target};

/// Make, join and leave a cluster
#[derive(Subcommand)]
pub enum Command {
    /// Make a cluster with this node as its first manager
    Init(Box<InitArgs>),
    /// Join a cluster, in the role that the token gives
    Join(JoinArgs),
    /// Leave the cluster
    Leave {
        /// Also where it costs the cluster its quorum or its state
        #[arg(short, long)]
        force: bool,
    },
    /// Show how a node joins as a worker or as a manager
    JoinToken {
        /// Only the token
        #[arg(short, long)]
        quiet: bool,
        /// Make a new token; the old one is void at once
        #[arg(long)]
        rotate: bool,
        /// The role of the node that joins
        role: Role,
    },
    /// Change the settings of the cluster
    Update(Settings),
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    Worker,
    Manager,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// How this node is reached, and whether it takes tasks.
#[derive(clap::Args)]
struct Place {
    /// How others reach this node: IP or INTERFACE, with :PORT where it is not 2377
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Where this node listens: IP or INTERFACE, with :PORT
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Where the traffic between containers of different nodes comes in: IP or INTERFACE [default: as the advertised
    /// address]
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Whether this node takes tasks
    #[arg(long, value_name = "STATE", default_value = "active", value_parser = ["active", "pause", "drain"])]
    availability: String,
}

#[derive(clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    place: Place,
    /// UDP port of that traffic, on every node [default: 4789]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    data_path_port: u16,
    /// Where subnets of networks come from (repeatable)
    #[arg(long = "default-addr-pool", value_name = "BLOCK", help_heading = "Addresses")]
    pools: Vec<IpNet>,
    /// Prefix length of a network's subnet [default: 24]
    #[arg(long = "default-addr-pool-mask-length", value_name = "LENGTH", help_heading = "Addresses")]
    subnet_size: Option<u8>,
    /// Where the edge addresses of containers come from, one block a node [default: 100.64.0.0/10]
    #[arg(long, value_name = "BLOCK", help_heading = "Addresses")]
    edge_pool: Option<String>,
    /// The same for IPv6, a /64 a node [default: fd00:c0e7::/40]
    #[arg(long, value_name = "BLOCK", help_heading = "Addresses")]
    edge_pool_v6: Option<String>,
    /// Prefix length of a node's block [default: 24]
    #[arg(long, value_name = "LENGTH", help_heading = "Addresses")]
    edge_block: Option<u8>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(clap::Args)]
pub struct JoinArgs {
    #[command(flatten)]
    place: Place,
    /// As 'covey swarm join-token' shows it on a manager
    #[arg(long)]
    token: String,
    /// A manager: HOST:PORT
    #[arg(value_name = "HOST:PORT", required = true)]
    managers: Vec<String>,
}

/// Settings of the cluster.
#[derive(clap::Args)]
pub struct Settings {
    /// How long certificates last, such as 2160h
    #[arg(long, value_name = "DURATION")]
    cert_expiry: Option<Nanos>,
    /// How long a node may be silent before its tasks start elsewhere
    #[arg(long, value_name = "DURATION")]
    dispatcher_heartbeat: Option<Nanos>,
    /// Log entries between two snapshots
    #[arg(long, value_name = "NUMBER")]
    snapshot_interval: Option<u64>,
    /// Ended tasks that are kept for each slot
    #[arg(long, value_name = "NUMBER")]
    task_history_limit: Option<i64>,
}

impl Settings {
    /// Writes those that were given into the spec of a cluster; says whether there are any.
    fn apply(&self, spec: &mut Map<String, Value>) -> bool {
        let given = [
            ("CAConfig", "NodeCertExpiry", self.cert_expiry.map(|nanos| json!(nanos.0))),
            ("Dispatcher", "HeartbeatPeriod", self.dispatcher_heartbeat.map(|nanos| json!(nanos.0))),
            ("Raft", "SnapshotInterval", self.snapshot_interval.map(|number| json!(number))),
            (
                "Orchestration",
                "TaskHistoryRetentionLimit",
                self.task_history_limit.map(|number| json!(number)),
            ),
        ];
        let mut changed = false;
        for (group, field, value) in given {
            let Some(value) = value else { continue };
            let group = spec.entry(group).or_insert_with(|| json!({}));
            if let Some(fields) = group.as_object_mut() {
                fields.insert(field.to_owned(), value);
                changed = true;
            }
        }
        changed
    }
}

/// `covey swarm …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Init(args) => init(*args, client).await,
        Command::Join(args) => join(args, client).await,
        Command::Leave { force } => {
            client.post(Target::new(&["swarm", "leave"]).with_flag("force", force)).await?;
            Ok(say("Node left the swarm.")?)
        }
        Command::JoinToken { quiet, rotate, role } => join_token(quiet, rotate, role, client).await,
        Command::Update(settings) => update(&settings, client).await,
    }
}

async fn init(args: InitArgs, client: &Client) -> Result<()> {
    let node: String = client.post_json(Target::new(&["swarm", "init"]), &init_request(&args)).await?;
    let command = join_command(Role::Worker, client).await?;
    // CLU-02
    Ok(print(&format!(
        "Swarm initialized: current node ({node}) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    {command}\n\n\
         To add a manager to this swarm, run 'covey swarm join-token manager' and follow the instructions.\n"
    ))?)
}

fn init_request(args: &InitArgs) -> Value {
    let mut spec = Map::new();
    args.settings.apply(&mut spec);
    let edge: Vec<_> = [&args.edge_pool, &args.edge_pool_v6].into_iter().flatten().collect();
    json!({
        "AdvertiseAddr": args.place.advertise_addr,
        "ListenAddr": args.place.listen_addr,
        "Availability": args.place.availability,
        "DataPathAddr": args.place.data_path_addr,
        "DataPathPort": args.data_path_port,
        "DefaultAddrPool": args.pools,
        "SubnetSize": args.subnet_size.unwrap_or(0),
        "EdgeAddrPool": edge,
        "EdgeBlockSize": args.edge_block.unwrap_or(0),
        "Spec": spec,
    })
}

async fn join(args: JoinArgs, client: &Client) -> Result<()> {
    let request = json!({
        "AdvertiseAddr": args.place.advertise_addr,
        "ListenAddr": args.place.listen_addr,
        "DataPathAddr": args.place.data_path_addr,
        "Availability": args.place.availability,
        "RemoteAddrs": args.managers,
        "JoinToken": args.token,
    });
    client.send_json(Target::new(&["swarm", "join"]), &request).await?;
    let info: Value = client.get(Target::new(&["info"])).await?;
    let role = if info["Swarm"]["ControlAvailable"].as_bool() == Some(true) { "manager" } else { "worker" };
    // CLU-06
    Ok(say(format!("This node joined a swarm as a {role}."))?)
}

async fn join_token(quiet: bool, rotate: bool, role: Role, client: &Client) -> Result<()> {
    if rotate {
        let swarm: Value = client.get(Target::new(&["swarm"])).await?;
        let which = match role {
            Role::Worker => "rotateWorkerToken",
            Role::Manager => "rotateManagerToken",
        };
        client.send_json(update_target(&swarm).with(which, true), &swarm["Spec"]).await?;
        if !quiet {
            say(format!("Successfully rotated {} join token.\n", role.name()))?;
        }
    }
    if quiet {
        let swarm: Value = client.get(Target::new(&["swarm"])).await?;
        return Ok(say(token(&swarm, role)?)?);
    }
    let command = join_command(role, client).await?;
    // CLU-09
    Ok(print(&format!(
        "To add a {} to this swarm, run the following command:\n\n    {command}\n\n",
        role.name()
    ))?)
}

/// The complete command for a node that joins in this role.
async fn join_command(role: Role, client: &Client) -> Result<String> {
    let swarm: Value = client.get(Target::new(&["swarm"])).await?;
    let info: Value = client.get(Target::new(&["info"])).await?;
    let node = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
    let node: Value = client.get(Target::new(&["nodes", node])).await?;
    let Some(address) = node["ManagerStatus"]["Addr"].as_str() else {
        bail!("this node does not say how it is reached as a manager: see 'covey node inspect self'");
    };
    Ok(format!("covey swarm join --token {} {address}", token(&swarm, role)?))
}

fn token(swarm: &Value, role: Role) -> Result<&str> {
    let key = match role {
        Role::Worker => "Worker",
        Role::Manager => "Manager",
    };
    match swarm["JoinTokens"][key].as_str() {
        Some(token) => Ok(token),
        None => bail!("the daemon did not say the join token"),
    }
}

async fn update(settings: &Settings, client: &Client) -> Result<()> {
    let mut swarm: Value = client.get(Target::new(&["swarm"])).await?;
    let target = update_target(&swarm);
    let changed = swarm["Spec"].as_object_mut().is_some_and(|spec| settings.apply(spec));
    if !changed {
        bail!("nothing to update: see 'covey swarm update --help' for the settings");
    }
    client.send_json(target, &swarm["Spec"]).await?;
    Ok(say("Swarm updated.")?)
}

fn update_target(swarm: &Value) -> Target {
    Target::new(&["swarm", "update"]).with("version", swarm["Version"]["Index"].as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn read(words: &str) -> Command {
        Line::parse_from(["swarm"].into_iter().chain(words.split_whitespace())).command
    }

    /// CLU-03
    #[test]
    fn pools_of_networks_and_of_the_edge_are_apart() {
        let Command::Init(args) = read(
            "init --advertise-addr eth0 --availability drain --edge-pool 10.0.0.0/8 --edge-pool-v6 fd00::/40 \
             --edge-block 20 --task-history-limit 2 --default-addr-pool 172.20.0.0/14 --default-addr-pool fd10::/48 \
             --default-addr-pool-mask-length 26 --data-path-addr eth1 --data-path-port 7777",
        ) else {
            panic!("not init");
        };
        let request = init_request(&args);
        assert_eq!(request["DefaultAddrPool"], json!(["172.20.0.0/14", "fd10::/48"]));
        assert_eq!(request["EdgeAddrPool"], json!(["10.0.0.0/8", "fd00::/40"]));
        assert_eq!((&request["SubnetSize"], &request["EdgeBlockSize"]), (&json!(26), &json!(20)));
        assert_eq!((&request["DataPathAddr"], &request["DataPathPort"]), (&json!("eth1"), &json!(7777)));
        assert_eq!(
            (&request["AdvertiseAddr"], &request["ListenAddr"]),
            (&json!("eth0"), &json!("0.0.0.0:2377"))
        );
        assert_eq!(request["Spec"], json!({"Orchestration": {"TaskHistoryRetentionLimit": 2}}));
    }

    /// CLU-06
    #[tokio::test]
    async fn a_node_joins_with_its_addresses() {
        let daemon = Daemon::start([
            ("POST /swarm/join", Reply::Json(json!({}))),
            ("GET /info", Reply::Json(json!({"Swarm": {"ControlAvailable": false}}))),
        ]);
        let line = "join --token SWMTKN-1-w --advertise-addr eth0 --data-path-addr eth1 10.0.0.1:2377";
        run(read(line), &daemon.client()).await.unwrap();
        let expected = json!({"AdvertiseAddr": "eth0", "ListenAddr": "0.0.0.0:2377", "DataPathAddr": "eth1",
            "Availability": "active", "RemoteAddrs": ["10.0.0.1:2377"], "JoinToken": "SWMTKN-1-w"});
        assert_eq!(daemon.last(), ("POST /swarm/join".to_owned(), expected));
    }

    /// API-08: what this client does not know comes back as it was.
    #[tokio::test]
    async fn an_update_sends_the_whole_spec_back() {
        let swarm = json!({"Version": {"Index": 7}, "Spec": {"Name": "default", "Raft": {"ElectionTick": 4}, "New": [1]}});
        let daemon = Daemon::start([
            ("GET /swarm", Reply::Json(swarm)),
            ("POST /swarm/update", Reply::Json(json!({}))),
        ]);
        run(read("update --snapshot-interval 50"), &daemon.client()).await.unwrap();
        let (line, body) = daemon.last();
        assert_eq!(line, "POST /swarm/update?version=7");
        assert_eq!(
            body,
            json!({"Name": "default", "Raft": {"ElectionTick": 4, "SnapshotInterval": 50}, "New": [1]})
        );
        assert!(run(read("update"), &daemon.client()).await.is_err());
    }

    /// CLU-09
    #[tokio::test]
    async fn a_join_command_is_complete() {
        let daemon = Daemon::start([
            (
                "GET /swarm",
                Reply::Json(json!({"JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"}})),
            ),
            ("GET /info", Reply::Json(json!({"Swarm": {"NodeID": "n1"}}))),
            ("GET /nodes/n1", Reply::Json(json!({"ManagerStatus": {"Addr": "10.0.0.1:2377"}}))),
        ]);
        let command = join_command(Role::Manager, &daemon.client()).await.unwrap();
        assert_eq!(command, "covey swarm join --token SWMTKN-1-m 10.0.0.1:2377");
    }
}
