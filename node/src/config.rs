//! How the daemon is set up: its options, and the file that can stand in for them.

use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

/// Where the API listens where nothing else is said.
pub const SOCKET_DEFAULT: &str = "/run/covey/covey.sock";
/// How often the kernel is compared with what is wanted where nothing else is said, and what may be said.
const REPAIR_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const REPAIR_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Bytes of a configuration file, at most.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Run the daemon of this node.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// Where the API listens: unix://PATH
    #[arg(short = 'H', long = "host", value_name = "URL", env = "COVEY_HOST")]
    host: Option<String>,
    /// Images, containers, identity, the log of a manager [default: /var/lib/covey]
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Process ids and sockets; goes with a reboot [default: /run/covey]
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// The daemon's process id is written there
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// debug, info, warn or error
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// A label of this node's engine: KEY=VALUE (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A registry reached by plain HTTP: HOST[:PORT] or an address block (repeatable)
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Vec<String>,
    /// The options above in TOML, with "_" for "-" [default: /etc/covey/daemon.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Control groups of containers are made below this one [default: /covey]
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// How often the kernel is compared with what networks are to be, and mended: 1s to 1h [default: 10s]
    #[arg(long, value_name = "DURATION")]
    repair_interval: Option<String>,
}

/// The same options as a file has them; a name that is none of them is an error.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    host: Option<String>,
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    log_level: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
    cgroup_parent: Option<String>,
    repair_interval: Option<String>,
}

/// The daemon's settings, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the API listens.
    pub socket: PathBuf,
    /// What survives a reboot.
    pub data_root: PathBuf,
    /// What goes with it.
    pub exec_root: PathBuf,
    /// Where the process id is written.
    pub pidfile: Option<PathBuf>,
    /// Which log lines are printed.
    pub log_level: tracing::Level,
    /// Labels of this node's engine.
    pub labels: BTreeMap<String, String>,
    /// Registries reached by plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Control groups of containers are made below this one.
    pub cgroup_parent: String,
    /// The kernel is compared with what networks are to be this often.
    pub repair_interval: Duration,
}

impl Config {
    /// The settings that the command line and the configuration file give; the command line wins.
    ///
    /// # Errors
    /// One clear sentence about the first option that makes no sense.
    pub fn load(args: DaemonArgs) -> Result<Self> {
        let file = read_file(args.config_file.as_deref())?;
        let host = args.host.or(file.host).unwrap_or_else(|| format!("unix://{SOCKET_DEFAULT}"));
        let level = args.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned());
        let cgroup_parent = args.cgroup_parent.or(file.cgroup_parent).unwrap_or_else(|| "/covey".to_owned());
        if !cgroup_parent.starts_with('/')
            || cgroup_parent.split('/').any(|part| part == "..")
            || cgroup_parent == "/"
        {
            bail!(
                "--cgroup-parent {cgroup_parent}: it has to be an absolute path below the root, such as /covey"
            );
        }
        let texts = if args.labels.is_empty() { file.labels } else { args.labels };
        Ok(Self {
            socket: socket_path(&host)?,
            data_root: absolute(args.data_root.or(file.data_root), "/var/lib/covey", "--data-root")?,
            exec_root: absolute(args.exec_root.or(file.exec_root), "/run/covey", "--exec-root")?,
            pidfile: args.pidfile.or(file.pidfile),
            log_level: level
                .parse()
                .with_context(|| format!("--log-level {level}: use debug, info, warn or error"))?,
            labels: texts.iter().map(|text| parse_label(text)).collect::<Result<_>>()?,
            insecure_registries: if args.insecure_registries.is_empty() {
                file.insecure_registries
            } else {
                args.insecure_registries
            },
            cgroup_parent,
            repair_interval: args
                .repair_interval
                .or(file.repair_interval)
                .map_or(Ok(REPAIR_INTERVAL_DEFAULT), |text| repair_interval(&text))?,
        })
    }
}

/// The path in `unix://PATH`.
///
/// # Errors
/// Other schemes: TCP comes with mutual TLS, never without.
pub fn socket_path(host: &str) -> Result<PathBuf> {
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(("tcp", _)) => bail!(
            "{host}: a TCP listener comes later, with mutual TLS; until then use unix://PATH (and ssh -L to reach it from elsewhere)"
        ),
        _ => bail!("{host}: the API listens on unix://PATH, with an absolute path"),
    }
}

fn absolute(path: Option<PathBuf>, default: &str, option: &str) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    if !path.is_absolute() {
        bail!("{option} {}: it has to be an absolute path", path.display());
    }
    Ok(path)
}

fn repair_interval(text: &str) -> Result<Duration> {
    let interval =
        humantime::parse_duration(text).ok().filter(|interval| REPAIR_INTERVALS.contains(interval));
    interval.with_context(|| format!("--repair-interval {text}: it has to be from 1s to 1h, such as 30s"))
}

fn parse_label(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("--label {text}: it has to have the form KEY=VALUE"),
    }
}

fn read_file(path: Option<&Path>) -> Result<ConfigFile> {
    let standard = Path::new("/etc/covey/daemon.toml");
    let path = match path {
        Some(path) => path,
        None if standard.exists() => standard,
        None => return Ok(ConfigFile::default()),
    };
    let shown = path.display();
    let size = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    if size > CONFIG_BYTES_MAX {
        bail!("{shown} has {size} bytes; a configuration file has at most {CONFIG_BYTES_MAX}");
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    toml::from_str(&text).with_context(|| format!("{shown} is not a valid configuration"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DaemonArgs,
    }

    fn load(words: &[&str]) -> Result<Config> {
        Config::load(Line::parse_from([&["covey"], words].concat()).args)
    }

    #[test]
    fn the_defaults_are_those_of_a_host() {
        let config = load(&[]).unwrap();
        assert_eq!(config.socket, Path::new("/run/covey/covey.sock"));
        assert_eq!(config.data_root, Path::new("/var/lib/covey"));
        assert_eq!(config.cgroup_parent, "/covey");
        assert_eq!(config.repair_interval, Duration::from_secs(10));
    }

    #[test]
    fn the_interval_of_repairs_has_bounds() {
        let interval = |text: &str| load(&["--repair-interval", text]).map(|config| config.repair_interval);
        for (text, seconds) in [("1s", 1), ("1m 30s", 90), ("1h", 3600)] {
            assert_eq!(interval(text).unwrap(), Duration::from_secs(seconds));
        }
        for wrong in ["999ms", "3601s", "0s", "10", "", "soon"] {
            let error = interval(wrong).unwrap_err().to_string();
            assert!(error.contains("from 1s to 1h"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_tcp_listener_is_refused_until_it_has_tls() {
        let error = load(&["-H", "tcp://0.0.0.0:2375"]).unwrap_err().to_string();
        assert!(error.contains("mutual TLS"), "{error}");
    }

    #[test]
    fn options_win_over_the_file_and_unknown_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.toml");
        let text = "log_level = \"debug\"\nlabels = [\"rack=1\"]\nrepair_interval = \"30s\"\n";
        fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let config = load(&["--config-file", file, "--log-level", "warn"]).unwrap();
        assert_eq!((config.log_level, config.labels["rack"].as_str()), (tracing::Level::WARN, "1"));
        assert_eq!(config.repair_interval, Duration::from_secs(30));
        fs::write(&path, "log-levle = \"debug\"\n").unwrap();
        assert!(load(&["--config-file", file]).is_err());
    }
}
