//! `exec`: one more process in a running container.

use anyhow::{Result, bail};
use serde_json::json;

use super::session;
use crate::{
    client::{
        Client, Target,
        model::{Created, Exec},
    },
    command::{Exit, options},
};

#[derive(clap::Args)]
pub struct Args {
    /// Return at once
    #[arg(short, long)]
    detach: bool,
    /// KEY=VALUE, or KEY to take this shell's value (repeatable)
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal (not yet)
    #[arg(short, long, hide = true)]
    tty: bool,
    /// NAME or UID, with :GROUP or :GID where wanted
    #[arg(short, long)]
    user: Option<String>,
    /// Where the process starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Id or name
    container: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    options::refuse_tty(args.tty)?;
    let attached = !args.detach;
    let request = json!({
        "AttachStdin": attached && args.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Env": options::environment(&[""; 0], &args.env)?,
        "User": args.user.unwrap_or_default(),
        "WorkingDir": args.workdir.unwrap_or_default(),
        "Cmd": args.command,
    });
    let created: Created =
        client.post_json(Target::new(&["containers", &args.container, "exec"]), &request).await?;
    let start = Target::new(&["exec", &created.id, "start"]);
    let how = json!({"Detach": args.detach, "Tty": false});
    if args.detach {
        return Ok(client.send_json(start, &how).await?);
    }
    session::run(client.hijack(start, Some(&how)).await?, args.interactive).await?;
    let exec: Exec = client.get(Target::new(&["exec", &created.id, "json"])).await?;
    match exec.exit_code {
        Some(0) => Ok(()),
        Some(code) => Err(Exit::of(code).into()),
        None => bail!("the daemon did not say how the process ended"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// CTR-07
    #[tokio::test]
    async fn a_process_gives_its_exit_code() {
        let daemon = Daemon::start([
            ("POST /containers/web/exec", Reply::Json(json!({"Id": "e1"}))),
            ("POST /exec/e1/start", Reply::Upgrade(Vec::new())),
            ("GET /exec/e1/json", Reply::Json(json!({"ExitCode": 7}))),
        ]);
        let line = ["exec", "-u", "1", "-e", "A=1", "web", "sh", "-c", "exit 7"];
        let error = run(Line::parse_from(line).args, &daemon.client()).await.unwrap_err();
        assert_eq!(error.downcast::<Exit>().unwrap().0, 7);
        let (line, body) = daemon.asked().swap_remove(0);
        assert_eq!(line, "POST /containers/web/exec");
        assert_eq!(
            (&body["Cmd"], &body["User"], &body["Env"]),
            (&json!(["sh", "-c", "exit 7"]), &json!("1"), &json!(["A=1"]))
        );
        assert_eq!(daemon.last().1, json!({"Detach": false, "Tty": false}));
    }
}
