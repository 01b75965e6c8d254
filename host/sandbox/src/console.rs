//! What the guest says on its console when it ends itself, read for people's messages.

/// `anchorhold-init` writes one such line before it powers the machine off.
const INIT_REFUSED: &str = "anchorhold-init: refused: ";
const INIT_FAILED: &str = "anchorhold-init: failed: ";
const INIT_ENDED: &str = "anchorhold-init: ";
/// What the agent writes, its last words among it.
const AGENT: &str = "anchorhold-agent: ";
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

/// The last word of init among these lines; the agent's before it, when it is the agent that failed.
pub(crate) fn init_word(lines: &[&str]) -> Option<InitWord> {
    let after = |line: &str, mark: &str| Some(line.split_once(mark)?.1.trim().to_owned());
    lines.iter().enumerate().rev().find_map(|(index, line)| {
        let ended = || {
            let text = after(line, INIT_ENDED)?;
            let agent = lines.iter().take(index).rev().find_map(|line| after(line, AGENT));
            Some(agent.map_or(text.clone(), |agent| format!("{text}: {agent}")))
        };
        after(line, INIT_REFUSED)
            .map(InitWord::Refused)
            .or_else(|| after(line, INIT_FAILED).map(InitWord::Failed))
            .or_else(|| ended().map(InitWord::Failed))
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
        let check = |lines: &[&str], expect| assert_eq!(init_word(lines), expect);
        check(&["[ 1.0] reboot: Power down"], None);
        check(
            &["x", "anchorhold-init: refused: initdata: a is not b", "[ 1.1] reboot: Power down"],
            Some(InitWord::Refused("initdata: a is not b".into())),
        );
        check(
            &["anchorhold-init: the agent ended with status 1, powering off"],
            Some(InitWord::Failed("the agent ended with status 1, powering off".into())),
        );
        check(
            &["anchorhold-agent: policy: line 3", "anchorhold-init: the agent ended with status 1"],
            Some(InitWord::Failed("the agent ended with status 1: policy: line 3".into())),
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
