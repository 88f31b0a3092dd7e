//! The command line: one file per noun or verb. All but `daemon` are pure clients of the Engine API.

mod age;
mod container;
mod events;
mod health;
mod image;
mod info;
mod inspect;
mod json;
mod moment;
mod mount;
mod net;
mod network;
mod node;
mod options;
mod overview;
mod ports;
mod progress;
mod publish;
mod quantity;
mod service;
mod swarm;
mod table;
mod tasks;
mod terminal;
mod version;
mod words;

#[cfg(test)]
mod fake;

use std::{env, ffi::OsString, io, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    client::Client,
    config::{Config, DaemonArgs, SOCKET_DEFAULT, socket_path},
};

/// Exit code of a failed command; what is wrong was said on standard error.
const FAILED: u8 = 1;

/// Covey: a container orchestrator for many small hosts, in one binary.
#[derive(Parser)]
#[command(name = "covey", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The daemon's socket [env: COVEY_HOST, then DOCKER_HOST] [default: unix:///run/covey/covey.sock]
    #[arg(short = 'H', long, value_name = "URL")]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon of this node
    Daemon(Box<DaemonArgs>),
    #[command(flatten)]
    Ask(Question),
}

/// What is asked of the daemon.
#[derive(Subcommand)]
enum Question {
    /// Make, join and leave a cluster
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// See and change the cluster's nodes
    #[command(subcommand)]
    Node(node::Command),
    /// Run services: as many tasks as wanted, wherever they fit
    #[command(subcommand)]
    Service(service::Command),
    /// Make networks, and see who is on them
    #[command(subcommand)]
    Network(network::Command),
    /// Examine the networks: what is wrong, and which way a packet goes
    #[command(subcommand)]
    Net(net::Command),

    /// Run a command in a new container
    Run(Box<container::run::Args>),
    /// Run a command in a running container
    Exec(container::exec::Args),
    /// List containers
    Ps(container::ls::Args),
    /// Show the log of a container
    Logs(container::logs::Args),
    /// Show where the ports of a container are reached
    Port(container::port::Args),
    /// Start stopped containers
    Start(container::lifecycle::StartArgs),
    /// Stop containers
    Stop(container::lifecycle::StopArgs),
    /// Send a signal to containers
    Kill(container::lifecycle::KillArgs),
    /// Wait until containers end, then print their exit codes
    Wait(container::lifecycle::WaitArgs),
    /// Remove containers
    Rm(container::lifecycle::RemoveArgs),
    /// All of the above, and more, under one noun
    #[command(subcommand)]
    Container(container::Command),

    /// Fetch an image from a registry
    Pull(image::pull::Args),
    /// Take the images of an archive
    Load(image::load::LoadArgs),
    /// Make an image out of an archive of files
    Import(image::load::ImportArgs),
    /// List images
    Images(image::ls::Args),
    /// Give an image one more name
    Tag(image::names::TagArgs),
    /// Remove images
    Rmi(image::names::RemoveArgs),
    /// All of the above, and more, under one noun
    #[command(subcommand)]
    Image(image::Command),

    /// Show what is known of containers, images, networks, services, nodes and tasks
    Inspect(inspect::Args),
    /// Show what happens, as it happens
    Events(events::Args),
    /// Show the daemon, its machine and its cluster
    Info,
    /// Show the versions of client and daemon
    Version,
}

/// What a command ends with where it has said all that there is to say.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
struct Exit(u8);

impl Exit {
    /// The exit code of a process in a container as that of this one.
    fn of(code: i32) -> Self {
        Self(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

/// Reads the command line and does what it says: the whole program but for the shim.
pub fn main() -> ExitCode {
    let set = env::var("COVEY_HOST").is_ok_and(|host| !host.is_empty());
    match read(env::args_os().collect(), set) {
        Ok(cli) => run(cli).map_or_else(|error| report(&error), |()| ExitCode::SUCCESS),
        Err((error, code)) => {
            // Nobody may be there to read it.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

/// The command line, or what is wrong with it (or its help) and the exit code for that.
fn read(words: Vec<OsString>, host_is_set: bool) -> Result<Cli, (clap::Error, u8)> {
    let mut command = overview::add(Cli::command());
    if !host_is_set {
        // An empty variable says no more than none.
        command = command.mut_subcommand("daemon", |daemon| daemon.mut_arg("host", |host| host.env(None)));
    }
    let parsed = command.clone().try_get_matches_from(&words);
    parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(FAILED);
        let code =
            if error.use_stderr() && is_run(command, &words) { container::run::NOT_STARTED } else { code };
        (error, code)
    })
}

/// True if the words ask for a container to be run, whatever is wrong with the rest of them.
fn is_run(command: clap::Command, words: &[OsString]) -> bool {
    let Ok(matches) = command.ignore_errors(true).try_get_matches_from(words) else { return false };
    match matches.subcommand() {
        Some(("run", _)) => true,
        Some(("container", below)) => below.subcommand_name() == Some("run"),
        _ => false,
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Daemon(_) if cli.host.is_some() => {
            bail!("say where the daemon listens after its name: covey daemon -H URL")
        }
        Command::Daemon(args) => crate::run::daemon(Config::load(*args)?),
        Command::Ask(question) => {
            let host = host(cli.host, |name| env::var(name).ok());
            ask(question, &Client::new(socket_path(&host)?))
        }
    }
}

fn ask(question: Question, client: &Client) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(dispatch(question, client));
    // A read of standard input may still be under way in a thread of the runtime: nobody waits for it.
    runtime.shutdown_background();
    done
}

/// Where the daemon is, as the options and the environment say.
fn host(option: Option<String>, variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    option
        .or_else(|| set("COVEY_HOST"))
        .or_else(|| set("DOCKER_HOST"))
        .unwrap_or_else(|| format!("unix://{SOCKET_DEFAULT}"))
}

async fn dispatch(question: Question, client: &Client) -> Result<()> {
    match question {
        Question::Swarm(command) => swarm::run(command, client).await,
        Question::Node(command) => node::run(command, client).await,
        Question::Service(command) => service::run(command, client).await,
        Question::Network(command) => network::run(command, client).await,
        Question::Net(command) => net::run(command, client).await,
        Question::Run(args) => container::run::run(*args, client).await,
        Question::Exec(args) => container::exec::run(args, client).await,
        Question::Ps(args) => container::ls::run(args, client).await,
        Question::Logs(args) => container::logs::run(args, client).await,
        Question::Port(args) => container::port::run(args, client).await,
        Question::Start(args) => container::lifecycle::start(args, client).await,
        Question::Stop(args) => container::lifecycle::stop(args, client).await,
        Question::Kill(args) => container::lifecycle::kill(args, client).await,
        Question::Wait(args) => container::lifecycle::wait(args, client).await,
        Question::Rm(args) => container::lifecycle::remove(args, client).await,
        Question::Container(command) => container::run_noun(command, client).await,
        Question::Pull(args) => image::pull::run(args, client).await,
        Question::Load(args) => image::load::load(args, client).await,
        Question::Import(args) => image::load::import(args, client).await,
        Question::Images(args) => image::ls::run(args, client).await,
        Question::Tag(args) => image::names::tag(args, client).await,
        Question::Rmi(args) => image::names::remove(args, client).await,
        Question::Image(command) => image::run(command, client).await,
        Question::Inspect(args) => inspect::run(args, client).await,
        Question::Events(args) => events::run(args, client).await,
        Question::Info => info::run(client).await,
        Question::Version => version::run(client).await,
    }
}

/// Says what went wrong, in one line, and gives the exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Exit(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    // The reader of a pipe has seen enough.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if !error.chain().any(closed) {
        terminal::complain(&format!("{error:#}"));
    }
    ExitCode::from(FAILED)
}

/// Does `work` for each name and goes on after an error; the command fails if one of them did.
async fn each(names: &[String], mut work: impl AsyncFnMut(&str) -> Result<()>) -> Result<()> {
    let mut failed = false;
    for name in names {
        if let Err(error) = work(name).await {
            report(&error);
            failed = true;
        }
    }
    if failed { Err(Exit(FAILED).into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-01, API-02
    #[test]
    fn the_option_wins_over_the_environment_and_that_over_the_default() {
        let both = |name: &str| Some(format!("unix:///{name}"));
        assert_eq!(host(Some("unix:///a".into()), both), "unix:///a");
        assert_eq!(host(None, both), "unix:///COVEY_HOST");
        let empty =
            |name: &str| (name == "DOCKER_HOST").then(|| "unix:///d".to_owned()).or(Some(String::new()));
        assert_eq!(host(None, empty), "unix:///d");
        assert_eq!(host(None, |_| None), "unix:///run/covey/covey.sock");
    }

    /// CTR-02: a shell can tell a wrong option from a command that failed.
    #[test]
    fn wrong_options_of_run_have_an_exit_code_of_their_own() {
        let code = |line: &str| {
            let words = line.split_whitespace().map(OsString::from).collect();
            read(words, false).err().map(|(_, code)| code)
        };
        for line in ["covey run --nope web", "covey -H unix:///x run", "covey container run --cpus x web"] {
            assert_eq!(code(line), Some(125), "{line}");
        }
        for line in ["covey ps --nope", "covey nope", "covey exec", "covey service ls run"] {
            assert_eq!(code(line), Some(2), "{line}");
        }
        assert_eq!(code("covey run --help"), Some(0));
        assert_eq!(code("covey run web --nope"), None);
    }

    /// API-01
    #[test]
    fn the_daemon_looks_at_its_variable_only_where_it_is_set() {
        let words = || ["covey", "daemon"].map(OsString::from).to_vec();
        assert!(matches!(read(words(), false), Ok(Cli { command: Command::Daemon(_), .. })));
        assert!(matches!(read(words(), true), Ok(Cli { command: Command::Daemon(_), .. })));
    }

    #[tokio::test]
    async fn without_a_daemon_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("none.sock"));
        let error = version::run(&client).await.unwrap_err().to_string();
        assert!(error.contains("none.sock (entity not found): start it with 'covey daemon'"), "{error}");
    }

    #[tokio::test]
    async fn the_rest_is_done_after_an_error() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let mut done = Vec::new();
        let outcome = each(&names, async |name| {
            if name == "b" {
                bail!("no b");
            }
            done.push(name.to_owned());
            Ok(())
        });
        assert_eq!(outcome.await.unwrap_err().downcast::<Exit>().unwrap().0, FAILED);
        assert_eq!(done, ["a", "c"]);
    }
}
