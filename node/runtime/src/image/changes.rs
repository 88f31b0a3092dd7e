//! The instructions that `import --change` understands, in the words of a Dockerfile.

use serde_json::{Map, Value, json};

/// An instruction that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such instruction, or it cannot be used here.
    #[error("{0} is not a valid change command")]
    Unknown(String),
    /// Its arguments are wrong.
    #[error("bad change \"{change}\": {reason}")]
    Arguments {
        /// The whole change.
        change: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Applies one instruction to the `config` object of an image.
pub(super) fn apply_change(config: &mut Map<String, Value>, change: &str) -> Result<(), ChangeError> {
    let bad = |reason| ChangeError::Arguments { change: change.to_owned(), reason };
    let (instruction, arguments) =
        change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
    let (instruction, arguments) = (instruction.to_ascii_uppercase(), arguments.trim());
    if arguments.is_empty() && !instruction.is_empty() && known(&instruction) {
        return Err(bad("it needs an argument"));
    }
    match instruction.as_str() {
        "CMD" => set(config, "Cmd", command(arguments)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(arguments)),
        "USER" => set(config, "User", arguments.into()),
        "WORKDIR" => set(config, "WorkingDir", arguments.into()),
        "STOPSIGNAL" => set(config, "StopSignal", arguments.into()),
        "ENV" => {
            let list = config.entry("Env").or_insert_with(|| json!([]));
            for (key, value) in pairs(arguments).map_err(bad)? {
                if let Value::Array(list) = list {
                    list.retain(|old| !old.as_str().is_some_and(|old| old.starts_with(&format!("{key}="))));
                    list.push(format!("{key}={value}").into());
                }
            }
        }
        "LABEL" => {
            for (key, value) in pairs(arguments).map_err(bad)? {
                add(config, "Labels", key, value.into());
            }
        }
        "EXPOSE" => {
            for port in words(arguments).map_err(bad)? {
                add(
                    config,
                    "ExposedPorts",
                    port_name(&port).ok_or_else(|| bad("a port is a number"))?,
                    json!({}),
                );
            }
        }
        "VOLUME" => {
            for path in list(arguments).map_or_else(|| words(arguments), Ok).map_err(bad)? {
                add(config, "Volumes", path, json!({}));
            }
        }
        _ => return Err(ChangeError::Unknown(instruction)),
    }
    Ok(())
}

fn known(instruction: &str) -> bool {
    matches!(
        instruction,
        "CMD" | "ENTRYPOINT" | "USER" | "WORKDIR" | "STOPSIGNAL" | "ENV" | "LABEL" | "EXPOSE" | "VOLUME"
    )
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn add(config: &mut Map<String, Value>, set: &str, key: String, value: Value) {
    if let Value::Object(members) = config.entry(set).or_insert_with(|| json!({})) {
        members.insert(key, value);
    }
}

/// A JSON list of words, or a line for the shell.
fn command(arguments: &str) -> Value {
    list(arguments)
        .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), arguments.to_owned()])
        .into()
}

fn list(arguments: &str) -> Option<Vec<String>> {
    serde_json::from_str(arguments).ok()
}

fn port_name(port: &str) -> Option<String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let number: u16 = number.parse().ok()?;
    matches!(protocol, "tcp" | "udp" | "sctp").then(|| format!("{number}/{protocol}"))
}

/// `A=1 B="2 3"`, or the older `A 1`.
fn pairs(arguments: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(arguments)?;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (key, value) = arguments.split_once(char::is_whitespace).ok_or("it needs KEY=VALUE")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (key, value) = word.split_once('=').ok_or("it needs KEY=VALUE")?;
        if key.is_empty() { Err("a key is empty") } else { Ok((key.to_owned(), value.to_owned())) }
    };
    words.into_iter().map(pair).collect()
}

/// Splits at blanks outside of quotes; a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(changes: &[&str]) -> Result<Value, ChangeError> {
        let mut config = Map::new();
        for change in changes {
            apply_change(&mut config, change)?;
        }
        Ok(config.into())
    }

    /// CTR-06
    #[test]
    fn instructions_become_the_configuration() {
        let config = apply(&[
            r#"CMD ["httpd", "-f"]"#,
            "entrypoint exec x",
            r#"ENV A=1 B="2 3" C=x\ y"#,
            "ENV A=2",
            "ENV D four five",
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "WORKDIR /w",
            "USER 7:8",
            "VOLUME /a /b",
        ]);
        let expected = json!({
            "Cmd": ["httpd", "-f"], "Entrypoint": ["/bin/sh", "-c", "exec x"],
            "Env": ["B=2 3", "C=x y", "A=2", "D=four five"], "Labels": { "a.b": "c" },
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "WorkingDir": "/w", "User": "7:8",
            "Volumes": { "/a": {}, "/b": {} },
        });
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn other_instructions_are_refused() {
        for (change, error) in [
            ("RUN x", "RUN is not a valid change command"),
            ("CMD", "bad change \"CMD\": it needs an argument"),
            ("ENV A", "bad change \"ENV A\": it needs KEY=VALUE"),
            ("ENV A='1", "bad change \"ENV A='1\": a quote is not closed"),
            ("EXPOSE http", "bad change \"EXPOSE http\": a port is a number"),
            ("", " is not a valid change command"),
        ] {
            assert_eq!(apply(&[change]).unwrap_err().to_string(), error);
        }
    }
}
