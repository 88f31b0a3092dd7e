//! `covey --help`: the sub-commands in groups, made from their own descriptions.

use std::fmt::Write as _;

use clap::Command;

/// What belongs together, in the order in which it is shown.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Cluster", &["swarm", "node", "service"]),
    ("Networks", &["network", "net"]),
    (
        "Containers",
        &["run", "exec", "ps", "logs", "port", "start", "stop", "kill", "wait", "rm", "container"],
    ),
    ("Images", &["pull", "load", "import", "images", "tag", "rmi", "image"]),
    ("System", &["inspect", "events", "info", "version"]),
    ("Daemon", &["daemon"]),
];

/// What a newcomer types first.
const FIRST_STEPS: &str = "  covey daemon &
  covey swarm init --advertise-addr 192.0.2.1
  covey service create --name web --replicas 3 --publish 8080:80 registry.example/web:1
  covey service ps web";

/// Gives `command` a help that shows its sub-commands in groups.
pub fn add(command: Command) -> Command {
    let style = *command.get_styles().get_header();
    let mut text = String::new();
    for (title, names) in GROUPS {
        let _ = writeln!(text, "\n{style}{title}:{style:#}");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<10} {about}");
        }
    }
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n{text}\n{style}Options:{style:#}\n{{options}}\n\n\
         {style}First steps:{style:#}\n{FIRST_STEPS}\n\n'covey COMMAND --help' says more about a command."
    );
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::command::Cli;

    #[test]
    fn every_sub_command_is_in_one_group_and_has_a_description() {
        let command = Cli::command();
        let mut shown: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut known: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        shown.sort_unstable();
        known.sort_unstable();
        assert_eq!(shown, known);
        assert!(command.get_subcommands().all(|sub| sub.get_about().is_some()));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        add(Cli::command()).debug_assert();
    }
}
