//! Processes that are run in a container beside its init.

use std::future::ready;

use bytes::Bytes;
use covey_api::{
    Failure,
    engine::{Attached, ExecRequest, Running},
    log::Output,
};
use covey_runtime::{Exec, ExecError, ExecSpec, Runtime};
use futures_util::{StreamExt as _, future::BoxFuture, stream};

use super::{attach, failure};

/// Exit code of a program that is not there.
const NOT_FOUND: i32 = 127;
/// Exit code of a program that cannot be run for any other reason.
const CANNOT_RUN: i32 = 126;

/// Runs a process. One that cannot be run says so itself.
pub async fn run(runtime: &Runtime, request: ExecRequest) -> Result<Running, Failure> {
    let wanted = ExecSpec {
        cmd: request.argv,
        env: request.env,
        user: request.user,
        workdir: request.workdir,
        stdin: request.stdin,
    };
    let mut exec = match runtime.exec(&request.container, wanted).await {
        Ok(exec) => exec,
        Err(error @ ExecError::Failed { code, .. }) => return Ok(unrunnable(code, &error)),
        Err(error) => return Err(failure::exec(error)),
    };
    let output = std::mem::replace(&mut exec.output, Box::pin(stream::empty()));
    let stdin = exec.stdin.take().map(|stdin| ready(Some(stdin)));
    Ok(Running { pid: exec.pid, attached: attach::joined(output, stdin), exit: exit(exec) })
}

fn unrunnable(code: i32, error: &ExecError) -> Running {
    // Docker's words for it are output of the process, not of the client.
    let text = Bytes::from(format!("{error}\r\n"));
    Running {
        pid: 0,
        attached: Attached { input: None, output: stream::once(ready(Ok((Output::Stdout, text)))).boxed() },
        exit: Box::pin(ready(Ok(if code == NOT_FOUND { NOT_FOUND } else { CANNOT_RUN }))),
    }
}

fn exit(exec: Exec) -> BoxFuture<'static, Result<i32, Failure>> {
    Box::pin(async move { exec.wait().await.map_err(|error| failure::internal(&error)) })
}
