//! `run`: a command in a new container, in the foreground or in the background (CTR-02).

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{
    network,
    session::{self, Signals},
};
use crate::{
    client::{
        Client, ClientError, Reply, Session, Target,
        model::{Created, Waited},
    },
    command::{
        Exit,
        health::HealthOptions,
        image, mount, options, progress,
        quantity::{Bytes, Cpus},
        terminal,
    },
};

/// The container was not made, or did not start.
pub const NOT_STARTED: u8 = 125;
/// The command is there but cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// The command is not there.
const NOT_FOUND: u8 = 127;
/// Signals to stop after which this process no longer waits for the container.
const STOPS_MAX: u32 = 3;
/// Bytes of the answer to a wait.
const WAITED_BYTES_MAX: u64 = 64 << 10;

// -h is the host name here, as for docker.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// KEY=VALUE, or KEY to take this shell's value (repeatable)
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// A file of variables, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// A label: KEY or KEY=VALUE (repeatable)
    #[arg(short, long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A directory of the host: HOST-PATH:PATH[:ro] (repeatable)
    #[arg(short, long = "volume", value_name = "BIND")]
    volumes: Vec<String>,
    /// type=bind,source=…,target=…[,readonly] or type=tmpfs,target=… (repeatable)
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,
    /// Another program than the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// NAME or UID, with :GROUP or :GID where wanted
    #[arg(short, long)]
    user: Option<String>,
    /// Where the process starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name inside the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    network: network::Options,
    #[command(flatten)]
    terminal: options::Terminal,
    /// Memory, at most, such as 128m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// CPUs, at most, such as .5
    #[arg(long, value_name = "CPUS")]
    cpus: Option<Cpus>,
    /// Processes, at most
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The image's files cannot be changed
    #[arg(long)]
    read_only: bool,
    /// Signal that asks the container to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    #[command(flatten)]
    health: HealthOptions,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Show this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Name of the image
    image: String,
    /// What to run in the place of the image's own command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let prepared = args.terminal.refuse().and_then(|()| request(&args));
    let created = match prepared {
        Ok(request) => create(&args, &request, client).await,
        Err(error) => Err(error),
    };
    let id = match created {
        Ok(id) => id,
        Err(error) => return fail(&error, NOT_STARTED),
    };
    if args.detach {
        start(&id, args.rm, client).await?;
        return Ok(terminal::say(&id)?);
    }
    let connected = match connect(&args, &id, client).await {
        Ok(connected) => connected,
        Err(error) => return fail(&error, NOT_STARTED),
    };
    start(&id, args.rm, client).await?;
    foreground(&args, &id, connected, client).await
}

/// The body of the creation.
fn request(args: &Args) -> Result<Value> {
    let attached = !args.detach;
    let mounts = args.mounts.iter().map(|text| mount::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut request = json!({
        "Image": args.image,
        "Cmd": args.command,
        "Env": options::environment(&args.env_file, &args.env)?,
        "Labels": options::labels(&args.labels)?,
        "User": args.user.as_deref().unwrap_or_default(),
        "WorkingDir": args.workdir.as_deref().unwrap_or_default(),
        "Hostname": args.hostname.as_deref().unwrap_or_default(),
        "AttachStdin": attached && args.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "OpenStdin": args.interactive,
        "StdinOnce": attached && args.interactive,
        "HostConfig": {
            "Binds": args.volumes,
            "Mounts": mounts,
            "AutoRemove": args.rm,
            "ReadonlyRootfs": args.read_only,
            "Memory": args.memory.map_or(0, |bytes| bytes.0),
            "NanoCpus": args.cpus.map_or(0, |cpus| cpus.0),
            "PidsLimit": args.pids_limit.unwrap_or(0),
        },
    });
    args.network.apply(&mut request)?;
    if let Some(program) = &args.entrypoint {
        request["Entrypoint"] = json!([program]);
    }
    if let Some(signal) = &args.stop_signal {
        request["StopSignal"] = json!(signal);
    }
    if let Some(seconds) = args.stop_timeout {
        request["StopTimeout"] = json!(seconds);
    }
    if let Some(check) = args.health.changed(&Value::Null)? {
        request["Healthcheck"] = check;
    }
    Ok(request)
}

/// Makes the container; an image that is not here is fetched first.
async fn create(args: &Args, request: &Value, client: &Client) -> Result<String> {
    let target = || Target::new(&["containers", "create"]).with_some("name", args.name.as_deref());
    let created = match client.post_json::<Created>(target(), request).await {
        Err(error) if error.is_not_found() => {
            let (sink, name) =
                (if args.quiet { progress::Sink::Quiet } else { progress::Sink::Error }, &args.image);
            if !args.quiet {
                terminal::complain(&format!("Unable to find image '{}' locally", image::with_tag(name)));
            }
            image::pull::fetch(name, None, sink, client).await?;
            client.post_json(target(), request).await?
        }
        created => created?,
    };
    terminal::warn(&created.warnings);
    Ok(created.id)
}

/// Starts it. A container that did not start and that nobody will see again is removed.
async fn start(id: &str, remove: bool, client: &Client) -> Result<()> {
    let Err(error) = client.post(Target::new(&["containers", id, "start"])).await else {
        return Ok(());
    };
    let code = start_failure(&error);
    if remove {
        // What is wrong is told already; the container may also be gone.
        let _ = client.delete::<Value>(Target::new(&["containers", id]).with("force", 1)).await;
    }
    fail(&error.into(), code)
}

/// Says what went wrong, and gives `code`.
fn fail(error: &anyhow::Error, code: u8) -> Result<()> {
    terminal::complain(&format!("covey: {error:#}\n\nRun 'covey run --help' for more information"));
    Err(Exit(code).into())
}

/// The exit code for a container that did not start, as shells have it.
fn start_failure(error: &ClientError) -> u8 {
    let text = error.to_string().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match () {
        () if says(&["executable file not found", "no such file or directory"]) => NOT_FOUND,
        () if says(&["permission denied", "is a directory", "exec format error"]) => NOT_RUNNABLE,
        () => NOT_STARTED,
    }
}

/// What is there before the container starts, so that neither output nor its end nor a signal is missed.
struct Connected {
    session: Session,
    waiting: Reply,
    signals: Signals,
}

async fn connect(args: &Args, id: &str, client: &Client) -> Result<Connected> {
    let signals = Signals::catch().context("cannot catch signals")?;
    let attach = Target::new(&["containers", id, "attach"])
        .with("stream", 1)
        .with("stdout", 1)
        .with("stderr", 1)
        .with_flag("stdin", args.interactive);
    let session = client.hijack(attach, None).await?;
    let condition = if args.rm { "removed" } else { "next-exit" };
    let waiting = Target::new(&["containers", id, "wait"]).with("condition", condition);
    let waiting = client.post_stream(waiting).await?;
    Ok(Connected { session, waiting, signals })
}

/// Shows its output, passes signals on, and ends as it ends.
async fn foreground(args: &Args, id: &str, connected: Connected, client: &Client) -> Result<()> {
    let Connected { session, waiting, mut signals } = connected;
    let ended = async {
        let copied = session::run(session, args.interactive).await;
        let waited = waited(waiting).await;
        copied.context("the output of the container broke off")?;
        waited
    };
    tokio::pin!(ended);
    let mut stops = 0;
    let waited = loop {
        tokio::select! {
            waited = &mut ended => break waited?,
            signal = signals.next() => {
                stops += u32::from(matches!(signal, "SIGINT" | "SIGTERM"));
                if stops >= STOPS_MAX {
                    terminal::complain("asked to stop three times: the container is left running");
                    return Err(Exit(1).into());
                }
                // It may have ended in the meantime.
                let _ = client.post(Target::new(&["containers", id, "kill"]).with("signal", signal)).await;
            }
        }
    };
    match (waited.error.message.as_str(), waited.status_code) {
        ("", 0) => Ok(()),
        ("", code) => Err(Exit::of(code).into()),
        (message, _) => fail(&anyhow::anyhow!("Error response from daemon: {message}"), NOT_STARTED),
    }
}

async fn waited(reply: Reply) -> Result<Waited> {
    let mut text = Vec::new();
    reply.take(WAITED_BYTES_MAX).read_to_end(&mut text).await.context("the daemon went away")?;
    serde_json::from_slice(&text).context("the daemon did not say how the container ended")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::{
        fake::{Daemon, Reply as Fake},
        words,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &str) -> Args {
        let words = words::split(words).unwrap();
        Line::parse_from(["run".to_owned()].into_iter().chain(words)).args
    }

    /// CTR-03, RES-04, TSK-14
    #[test]
    fn the_options_become_a_creation() {
        let line = "-i --rm -e A=1 -v /data:/srv:ro --mount type=tmpfs,target=/tmp -u 1000:1000 -w /srv -h box \
                    --network none --memory 128m --cpus .5 --pids-limit 10 --read-only --label x=y \
                    --entrypoint /bin/sh --stop-signal SIGINT --stop-timeout 3 \
                    --health-cmd 'test -e /ok' busybox -c 'exit 3' --rm";
        let request = request(&read(line)).unwrap();
        assert_eq!(request["Healthcheck"], json!({"Test": ["CMD-SHELL", "test -e /ok"]}));
        assert_eq!(request["Cmd"], json!(["-c", "exit 3", "--rm"]));
        assert_eq!(request["Entrypoint"], json!(["/bin/sh"]));
        assert_eq!(request["Env"], json!(["A=1"]));
        assert_eq!((&request["StdinOnce"], &request["Hostname"]), (&json!(true), &json!("box")));
        let host = &request["HostConfig"];
        assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(134_217_728), &json!(500_000_000)));
        assert_eq!((&host["Binds"], &host["NetworkMode"]), (&json!(["/data:/srv:ro"]), &json!("none")));
        assert_eq!((&host["AutoRemove"], &host["ReadonlyRootfs"]), (&json!(true), &json!(true)));
        assert_eq!((&request["StopSignal"], &request["StopTimeout"]), (&json!("SIGINT"), &json!(3)));
    }

    fn code(done: Result<()>) -> u8 {
        done.map_or_else(|error| error.downcast::<Exit>().unwrap().0, |()| 0)
    }

    /// CTR-02: fetched, made, joined, waited for, started; it ends with the container's exit code.
    #[tokio::test]
    async fn a_missing_image_is_fetched_and_the_exit_code_is_that_of_the_container() {
        let progress =
            b"{\"status\":\"Pulling from web\",\"id\":\"1\"}\r\n{\"status\":\"Digest: sha256:1\"}\r\n";
        let created = vec![
            Fake::Refuse(404, "No such image: web:1"),
            Fake::Json(json!({"Id": "c1", "Warnings": null})),
        ];
        let daemon = Daemon::start([
            ("POST /containers/create", Fake::Each(created)),
            ("POST /images/create", Fake::Bytes(progress.to_vec())),
            ("POST /containers/c1/attach", Fake::Upgrade(Vec::new())),
            ("POST /containers/c1/wait", Fake::Json(json!({"StatusCode": 3}))),
            ("POST /containers/c1/start", Fake::Bytes(Vec::new())),
        ]);
        assert_eq!(code(run(read("--rm --name x web:1"), &daemon.client()).await), 3);
        let lines: Vec<_> = daemon.asked().into_iter().map(|(line, _)| line).collect();
        let expected = [
            "POST /containers/create?name=x",
            "POST /images/create?fromImage=web&tag=1",
            "POST /containers/create?name=x",
            "POST /containers/c1/attach?stream=1&stdout=1&stderr=1",
            "POST /containers/c1/wait?condition=removed",
            "POST /containers/c1/start",
        ];
        assert_eq!(lines, expected);
    }

    /// CTR-02
    #[tokio::test]
    async fn a_port_that_there_is_not_ends_as_what_did_not_start() {
        let daemon = Daemon::start([]);
        assert_eq!(code(run(read("-p 8080:0 web:1"), &daemon.client()).await), 125);
        assert!(daemon.asked().is_empty());
    }

    /// CTR-02
    #[tokio::test]
    async fn a_container_that_cannot_start_is_removed_where_rm_says_so() {
        let daemon = Daemon::start([
            ("POST /containers/create", Fake::Json(json!({"Id": "c1"}))),
            ("POST /containers/c1/attach", Fake::Upgrade(Vec::new())),
            ("POST /containers/c1/wait", Fake::Json(json!({"StatusCode": 0}))),
            (
                "POST /containers/c1/start",
                Fake::Refuse(400, "exec: \"x\": executable file not found in $PATH"),
            ),
            ("DELETE /containers/c1", Fake::Bytes(Vec::new())),
        ]);
        assert_eq!(code(run(read("--rm web:1 x"), &daemon.client()).await), 127);
        assert_eq!(daemon.last().0, "DELETE /containers/c1?force=1");
        let refused = Daemon::start([("POST /containers/create", Fake::Refuse(409, "name in use"))]);
        assert_eq!(code(run(read("web:1"), &refused.client()).await), 125);
    }

    #[test]
    fn what_comes_later_is_refused_in_clear_words() {
        let message = |line| read(line).terminal.refuse().unwrap_err().to_string();
        assert!(message("-t busybox").starts_with("not yet: terminals"));
    }

    /// CTR-02
    #[test]
    fn a_failed_start_has_the_exit_code_of_a_shell() {
        let code =
            |message: &str| start_failure(&ClientError::Refused { status: 400, message: message.into() });
        assert_eq!(code("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec: \"/etc\": permission denied"), 126);
        assert_eq!(code("no space left on device"), 125);
    }
}
