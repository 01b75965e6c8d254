//! What the guest says on its console when it ends itself, read for people's messages.

/// `anchorhold-init` writes one such line before it powers the machine off.
const INIT_REFUSED: &str = "anchorhold-init: refused: ";
const INIT_FAILED: &str = "anchorhold-init: failed: ";
const INIT_ENDED: &str = "anchorhold-init: ";
/// The agent's line about a container whose layer had a block that dm-verity refused.
const AGENT_CONTAINER: &str = "anchorhold-agent: container ";

/// What init said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InitWord {
    /// A check of init did its work.
    Refused(String),
    /// Init or the agent could not go on.
    Failed(String),
}

/// The last word of init among these lines.
pub(crate) fn init_word<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<InitWord> {
    lines.rev().find_map(|line| {
        let after = |mark: &str| line.split_once(mark).map(|(_, text)| text.trim().to_owned());
        after(INIT_REFUSED)
            .map(InitWord::Refused)
            .or_else(|| after(INIT_FAILED).map(InitWord::Failed))
            .or_else(|| after(INIT_ENDED).map(InitWord::Failed))
    })
}

/// `<container id>: <text>` of every refused layer.
pub(crate) fn corruptions<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(AGENT_CONTAINER)?.1.split_once(": "))
        .filter(|(_, text)| text.contains("dm-verity"))
        .map(|(id, text)| (id.to_owned(), text.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let check = |lines: &[&str], expect| assert_eq!(init_word(lines.iter().copied()), expect);
        check(&["[ 1.0] reboot: Power down"], None);
        check(
            &["x", "anchorhold-init: refused: initdata: a is not b", "[ 1.1] reboot: Power down"],
            Some(InitWord::Refused("initdata: a is not b".into())),
        );
        check(
            &["anchorhold-init: the agent ended with status 1, powering off"],
            Some(InitWord::Failed("the agent ended with status 1, powering off".into())),
        );
    }

    #[test]
    fn corruption_lines_name_the_container() {
        let lines = [
            "anchorhold-agent: container abc: dm-verity refused a block",
            "anchorhold-agent: container abc: other",
        ];
        assert_eq!(
            corruptions(lines.into_iter()),
            [("abc".to_owned(), "dm-verity refused a block".to_owned())]
        );
    }
}
