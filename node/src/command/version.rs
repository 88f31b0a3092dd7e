//! `version`: of the client, and of the daemon that it talks to.

use anyhow::Result;
use serde_json::Value;

use super::terminal;
use crate::client::{API_VERSION, Client, Target};

pub async fn run(client: &Client) -> Result<()> {
    terminal::print(&client_text())?;
    let daemon: Value = client.get(Target::new(&["version"])).await?;
    Ok(terminal::print(&daemon_text(&daemon))?)
}

fn client_text() -> String {
    let machine = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    block(
        "Client",
        &[("Version", env!("CARGO_PKG_VERSION")), ("API version", API_VERSION), ("OS/Arch", &machine)],
    )
}

fn daemon_text(daemon: &Value) -> String {
    let text = |key: &str| daemon[key].as_str().unwrap_or_default().to_owned();
    let api = format!("{} (minimum version {})", text("ApiVersion"), text("MinAPIVersion"));
    let machine = format!("{}/{}", text("Os"), text("Arch"));
    let name = daemon["Platform"]["Name"].as_str().unwrap_or_default();
    let title = if name.is_empty() { "Server".to_owned() } else { format!("Server: {name}") };
    let lines = [
        ("Version", text("Version")),
        ("API version", api),
        ("Git commit", text("GitCommit")),
        ("OS/Arch", machine),
        ("Kernel", text("KernelVersion")),
    ];
    let shown: Vec<_> =
        lines.iter().filter(|(_, value)| !value.is_empty()).map(|(key, v)| (*key, v.as_str())).collect();
    format!("\n{}", block(&title, &shown))
}

fn block(title: &str, lines: &[(&str, &str)]) -> String {
    let title = if title.contains(':') { title.to_owned() } else { format!("{title}:") };
    let lines: String =
        lines.iter().map(|(key, value)| format!(" {:<18}{value}\n", format!("{key}:"))).collect();
    format!("{title}\n{lines}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// API-05
    #[test]
    fn the_daemons_versions_are_shown() {
        let daemon = json!({"Platform": {"Name": "Covey"}, "Version": "0.1.0", "ApiVersion": "1.51",
            "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64", "KernelVersion": "6.1"});
        let expected = "
Server: Covey
 Version:          0.1.0
 API version:      1.51 (minimum version 1.24)
 OS/Arch:          linux/amd64
 Kernel:           6.1
";
        assert_eq!(daemon_text(&daemon), expected);
    }
}
