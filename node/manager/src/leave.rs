//! Whether a manager may leave without force, and what it is told where it may not.

/// What every refusal begins with.
const PARTICIPATING: &str =
    "You are attempting to leave the swarm on a node that is participating as a manager.";

/// Why a manager may not leave without force; `None`: it may. Numbers count voters, the leaving one included.
///
/// * `managers`: all of them.
/// * `reachable`: those that the leader reaches.
pub fn refusal(managers: usize, reachable: usize) -> Option<String> {
    if managers <= 1 {
        return Some(format!(
            "{PARTICIPATING} Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
        ));
    }
    let left = reachable.saturating_sub(1);
    (left < majority(managers)).then(|| {
        format!(
            "{PARTICIPATING} Removing this node leaves {} manager{} out of {}. Without a Raft quorum, your Swarm will be inaccessible. The only way to restore a Swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.",
            in_words(left),
            if left == 1 { "" } else { "s" },
            in_words(managers),
        )
    })
}

/// Managers that must agree, of `managers` (QRM-04).
pub fn majority(managers: usize) -> usize {
    managers / 2 + 1
}

/// The store allows no more managers than there are words here.
fn in_words(number: usize) -> String {
    const WORDS: [&str; 8] = ["no", "one", "two", "three", "four", "five", "six", "seven"];
    WORDS.get(number).map_or_else(|| number.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLU-11
    #[test]
    fn the_only_manager_is_told_that_all_state_would_be_erased() {
        assert_eq!(
            refusal(1, 1).unwrap(),
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
        );
    }

    /// CLU-13
    #[test]
    fn one_of_two_managers_is_told_that_quorum_would_be_lost() {
        assert_eq!(
            refusal(2, 2).unwrap(),
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing this node leaves one manager out of two. Without a Raft quorum, your Swarm will be inaccessible. The only way to restore a Swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
        );
    }

    /// CLU-13, QRM-04
    #[test]
    fn a_manager_may_leave_while_a_majority_stays_reachable() {
        assert_eq!(refusal(3, 3), None);
        assert_eq!(refusal(4, 4), None);
        assert_eq!(refusal(5, 4), None);
        assert!(refusal(3, 2).unwrap().contains("leaves one manager out of three."));
        assert!(refusal(5, 3).unwrap().contains("leaves two managers out of five."));
        assert!(refusal(4, 3).unwrap().contains("leaves two managers out of four."));
        assert!(refusal(2, 1).unwrap().contains("leaves no managers out of two."));
    }

    /// QRM-04
    #[test]
    fn a_majority_is_half_and_one_more() {
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
    }
}
