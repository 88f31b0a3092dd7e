//! What all log requests have in common: what they ask for, and the frames they get.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use crate::{
    failure::Failure,
    log::{LogLine, LogQuery},
    params::Params,
    stream::{frame, framed_type},
    wire::log_time,
};

/// What a request asks for.
pub fn query(params: &Params) -> Result<LogQuery, Failure> {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    let tail = match params.text("tail") {
        // Docker takes what is no number for all.
        "" | "all" => None,
        number => number.parse().ok(),
    };
    Ok(LogQuery {
        stdout,
        stderr,
        follow: params.flag("follow"),
        since: params.moment("since")?,
        until: params.moment("until")?,
        tail,
    })
}

/// How lines are written.
#[derive(Clone, Copy)]
pub struct Style {
    timestamps: bool,
    details: bool,
}

impl Style {
    pub fn of(params: &Params) -> Self {
        Self { timestamps: params.flag("timestamps"), details: params.flag("details") }
    }

    /// One frame: the time, where the line comes from (`k=v,k=v`, sorted by `k`), the line.
    pub fn frame(self, line: &LogLine, origin: &[(&str, String)]) -> Bytes {
        let mut text = BytesMut::with_capacity(line.text.len() + 64);
        if self.timestamps {
            text.put_slice(log_time(line.at).as_bytes());
            text.put_u8(b' ');
        }
        if self.details {
            let origin: Vec<_> =
                origin.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
            text.put_slice(origin.join(",").as_bytes());
            text.put_u8(b' ');
        }
        text.put_slice(&line.text);
        frame::output(line.output, &text)
    }
}

/// As a query is escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The reply that carries these frames; a failure on the way is told in band.
pub fn reply(
    params: &Params,
    frames: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
) -> Response {
    let body = frames.map(|framed| {
        Ok::<_, std::convert::Infallible>(framed.unwrap_or_else(|failure| frame::failure(&failure)))
    });
    ([(header::CONTENT_TYPE, framed_type(params.api()))], Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use covey_state::time::Stamp;

    use super::*;
    use crate::log::Output;

    /// SVC-52
    #[test]
    fn a_line_carries_its_time_and_origin_in_one_frame() {
        let line = LogLine { at: Stamp(1), output: Output::Stdout, text: Bytes::from_static(b"hi you\n") };
        let style = Style { timestamps: true, details: true };
        let framed = style.frame(&line, &[("a.b", "x y".to_owned()), ("c", "1".to_owned())]);
        assert_eq!(&framed[8..], b"1970-01-01T00:00:00.000000001Z a.b=x+y,c=1 hi you\n");
        let plain = Style { timestamps: false, details: false };
        assert_eq!(&plain.frame(&line, &[])[8..], b"hi you\n");
    }
}
