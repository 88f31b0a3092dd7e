//! Progress of a service: a line a slot on a terminal, a line a change elsewhere. Both on standard error.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Progress;
use crate::command::terminal;

/// Slots that are shown one by one.
const SLOTS_MAX: usize = 20;

/// Steps on the way to a running task, in their order.
const STEPS: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

pub enum Display {
    Nothing,
    Lines { overall: String, reasons: BTreeMap<u64, String>, verify: String },
    Bars { all: MultiProgress, overall: ProgressBar, slots: BTreeMap<u64, ProgressBar>, verify: ProgressBar },
}

impl Display {
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Nothing;
        }
        if !terminal::is_watched() {
            return Self::Lines { overall: String::new(), reasons: BTreeMap::new(), verify: String::new() };
        }
        let all = MultiProgress::new();
        let line = |prefix: &'static str| {
            all.add(ProgressBar::no_length().with_style(style("{prefix}{msg}")).with_prefix(prefix))
        };
        Self::Bars {
            overall: line("overall progress: "),
            verify: line("verify: "),
            slots: BTreeMap::new(),
            all,
        }
    }

    pub fn show(&mut self, progress: &Progress) {
        let text = overall_text(progress);
        match self {
            Self::Nothing => {}
            Self::Lines { overall, reasons, verify } => {
                if *overall != text {
                    terminal::complain(&format!("overall progress: {text}"));
                    *overall = text;
                    verify.clear();
                }
                for (slot, state) in
                    progress.slots.iter().filter(|(_, state)| !STEPS.contains(&state.as_str()))
                {
                    if reasons.get(slot) != Some(state) {
                        terminal::complain(&format!("{slot}/{}: {state}", progress.wanted));
                        reasons.insert(*slot, state.clone());
                    }
                }
            }
            Self::Bars { all, overall, slots, verify } => {
                overall.set_message(text);
                if !progress.is_done() {
                    verify.set_message("");
                }
                for gone in slots
                    .keys()
                    .filter(|slot| !progress.slots.contains_key(slot))
                    .copied()
                    .collect::<Vec<_>>()
                {
                    slots.remove(&gone).iter().for_each(ProgressBar::finish_and_clear);
                }
                let width = progress.wanted.to_string().len();
                for (slot, state) in progress.slots.iter().take(SLOTS_MAX) {
                    let bar = slots.entry(*slot).or_insert_with(|| all.insert_before(verify, slot_bar()));
                    bar.set_prefix(format!("{slot:>width$}/{}", progress.wanted));
                    draw(bar, state);
                }
            }
        }
    }

    pub fn verify(&mut self, text: &str) {
        match self {
            Self::Nothing => {}
            Self::Bars { verify, .. } => verify.set_message(text.to_owned()),
            Self::Lines { verify, .. } => {
                // Elsewhere than on a terminal a countdown is one line.
                let what = text.split_whitespace().next().unwrap_or_default();
                if verify != what {
                    terminal::complain(&format!("verify: {text}"));
                    what.clone_into(verify);
                }
            }
        }
    }

    /// Leaves what is shown as it is.
    pub fn finish(&mut self) {
        if let Self::Bars { overall, slots, verify, .. } = self {
            overall.abandon();
            slots.values().for_each(ProgressBar::abandon);
            verify.abandon();
        }
    }
}

fn overall_text(progress: &Progress) -> String {
    format!("{} out of {} tasks", progress.running, progress.wanted)
}

fn slot_bar() -> ProgressBar {
    ProgressBar::new(STEPS.len() as u64)
}

fn draw(bar: &ProgressBar, state: &str) {
    bar.set_message(state.to_owned());
    match STEPS.iter().position(|step| *step == state) {
        Some(step) => {
            bar.set_style(style("{prefix}: {msg:9} [{bar:50.cyan}]").progress_chars("=> "));
            bar.set_position(step as u64 + 1);
        }
        // Something is in the way: the reason is more useful than a bar.
        None => bar.set_style(style("{prefix}: {msg:.yellow}")),
    }
}

/// The style of a line; a template is a constant of ours, and where it were wrong the default would show.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_dockers_words() {
        let progress = Progress { wanted: 3, running: 2, ..Progress::default() };
        assert_eq!(overall_text(&progress), "2 out of 3 tasks");
    }

    #[test]
    fn the_templates_are_well_formed() {
        for template in ["{prefix}{msg}", "{prefix}: {msg:9} [{bar:50.cyan}]", "{prefix}: {msg:.yellow}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
