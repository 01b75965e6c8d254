//! A policy's text, taken apart: the data behind the rules, and the rules that only explain.

use std::collections::BTreeSet;

use ah_digest::Sha256;
use regorus::Value;

use crate::depth::Depth;
use crate::engine::{
    DATA, EXPLAIN_PREFIX, MAX_COLUMNS, MAX_DEPTH, MAX_LOOPS, MAX_MINUS_SIGNS, MAX_NESTING,
    MAX_REREADING, MAX_STATEMENTS, MAX_TOP_WORDS, PACKAGE, PolicyError,
};

/// Where the engine finds the data when the text allows it to be taken out of the rules.
pub(crate) const CONSTANTS: &str = "anchorhold_policy_data";

/// SHA-256 of the explanations that the generator has written so far, the latest last: texts of which it was checked that each
/// rule begins a line and explains only. What else stands there, even a line more, is part of what decides.
const KNOWN_EXPLANATIONS: [&str; 4] = [
    "c305e1193b6423aee147af48c43f47c8a763e832001cdf9cc3bc2eec42b32a00",
    "519d2743a47a249c4cdb4e3f8d8286be3235b514eee0e232b7d5247027d829a2",
    "3adba0f7262bbd81d7b0e6f9eda9c0930b83ec1897ef44843ff2345134c71735",
    "eb59f7e581c30a56deccb8bf8f286cb105cbddcf2fc488b03f23a0e6ddf1b19f",
];

/// A policy's text, taken apart.
#[derive(Clone)]
pub(crate) struct Parts {
    /// All rules, without the data behind them.
    pub(crate) rules: String,
    /// Where in them the explanations begin, when they can be left out.
    pub(crate) explanations_at: Option<usize>,
    /// The data that was taken out of the text.
    pub(crate) constants: Option<Value>,
}

impl Parts {
    pub(crate) fn of(text: &str) -> Self {
        let (rules, constants) = split_data(text);
        let explanations_at = constants.as_ref().and_then(|_| explanations_at(rules));
        Self { rules: rules.to_owned(), explanations_at, constants }
    }

    /// Those of a text whose rules are the same; `None` where they are not, or the data does not stand apart from them.
    pub(crate) fn of_alike(&self, text: &str) -> Option<Self> {
        let (rules, constants) = split_data(text);
        let alike = self.constants.is_some() && constants.is_some() && rules == self.rules;
        alike.then(|| Self { constants, ..self.clone() })
    }

    /// The data that was taken out of the text.
    pub(crate) fn own_data(&self) -> Option<&Value> {
        self.constants.as_ref()
    }

    /// The same rules with other data.
    pub(crate) fn with_own_data(&self, data: Value) -> Self {
        Self { constants: Some(data), ..self.clone() }
    }

    pub(crate) fn deciding(&self) -> &str {
        self.explanations_at.and_then(|at| self.rules.get(..at)).unwrap_or(&self.rules)
    }

    /// Rules with a rule that stands for the data, where that was taken out of the text.
    pub(crate) fn with_data(&self, rules: &str) -> String {
        match self.constants {
            Some(_) => format!("{rules}\n{DATA} := data.{CONSTANTS}\n"),
            None => rules.to_owned(),
        }
    }
}

/// Where rules begin that only explain. They can be left out of decisions when they are a text that is known to hold nothing
/// else ([`KNOWN_EXPLANATIONS`]), nothing before them names one of them, and nothing reaches rules by names that it computes.
fn explanations_at(rules: &str) -> Option<usize> {
    let at = rules.find(&format!("\n{EXPLAIN_PREFIX}"))?.checked_add(1)?;
    let (before, behind) = rules.split_at_checked(at)?;
    if !KNOWN_EXPLANATIONS.contains(&Sha256::of(behind).to_string().as_str()) {
        return None;
    }
    let computed = reaches_beyond_state(before) || before.matches(PACKAGE).count() != 1;
    let lines = behind.lines().filter(|line| line.starts_with(is_word));
    let heads: BTreeSet<&str> = lines.filter_map(|line| words(line).next()).collect();
    let named = words(before).any(|word| heads.contains(word));
    (!computed && !named).then_some(at)
}

/// Whether the data document is named other than as `data.pstate` or `data.guest`. A field or a text of that name is not it.
fn reaches_beyond_state(rules: &str) -> bool {
    let own = |(at, name): (usize, &str)| {
        let (before, behind) = (rules.get(..at)?, rules.get(at.checked_add(name.len())?..)?);
        let other = before.ends_with(is_word)
            || before.ends_with(['.', '"'])
            || behind.starts_with(is_word);
        let member = behind.strip_prefix('.').and_then(|rest| words(rest).next());
        Some(other || matches!(member, Some("pstate" | "guest")))
    };
    rules.match_indices("data").any(|found| own(found) != Some(true))
}

/// Refuses what the engine's parser would not come out of: too many brackets or operations one in another, too many minus signs, statements or loops, or too many characters that it reads once more,
/// counted each time. For each list, set and object it first tries whether it is a comprehension, and where it is none it reads the first element again; the elements
/// behind it are read once. Of a query, which stands behind `|` or goes over several statements, it reads each part again.
pub(crate) fn check_brackets(rules: &str) -> Result<(), PolicyError> {
    let (mut open, mut again): (Vec<Bracket>, u32) = (Vec::new(), 0);
    let (mut read, mut minus_signs, mut before) = (0_u64, 0_usize, ',');
    let (mut chars, mut depth, mut in_word) = (rules.chars(), Depth::new(), false);
    let (mut top_words, mut loops) = (0_usize, 0_usize);
    let mut of_in = Word::Other;
    while read <= MAX_REREADING {
        let (left, now) = (chars.as_str().len(), again);
        let next = chars.next().map(|c| if c == '#' { skip_comment(&mut chars) } else { c });
        if let Some(c) = next {
            of_in = match (c, of_in) {
                ('i', _) if !in_word && is_rest_of_in(chars.as_str()) => Word::BeginsIn,
                ('n', Word::BeginsIn) => Word::EndsIn,
                _ => Word::Other,
            };
            if depth.see(c, of_in != Word::Other) > MAX_DEPTH {
                return Err(PolicyError::TooLong);
            }
            top_words =
                top_words.saturating_add(usize::from(open.is_empty() && is_word(c) && !in_word));
            if top_words > MAX_TOP_WORDS {
                return Err(PolicyError::TooManyRules);
            }
            in_word = is_word(c);
            let is_loop = match c {
                '[' => is_word(before) || "\"`)]}".contains(before),
                _ => matches!(of_in, Word::EndsIn),
            };
            loops = loops.saturating_add(usize::from(is_loop && !open.is_empty()));
            if loops > MAX_LOOPS {
                return Err(PolicyError::TooManyLoops);
            }
        }
        match next {
            None => return Ok(()),
            Some('[' | '{' | '(') if open.len() >= MAX_NESTING => {
                return Err(PolicyError::TooNested);
            }
            Some(bracket @ ('[' | '{' | '(')) => {
                let tried = bracket != '(';
                again = again.saturating_add(u32::from(tried));
                open.push(Bracket { tried, again: tried, query: false, statements: 0 });
            }
            Some(']' | '}' | ')') => {
                let ends = open.pop().is_some_and(|bracket| bracket.again);
                again = again.saturating_sub(u32::from(ends));
                if open.is_empty() {
                    loops = 0;
                }
            }
            Some(',') => {
                if let Some(bracket) = open.last_mut().filter(|one| one.again && !one.query) {
                    bracket.again = false;
                    again = again.saturating_sub(1);
                }
            }
            // a line that ends an element of a list says nothing of the next one
            Some(c @ ('|' | ';' | '\n')) if c != '\n' || !",[{(".contains(before) => {
                if let Some(bracket) = open.last_mut() {
                    bracket.statements = bracket.statements.saturating_add(1);
                    if bracket.statements > MAX_STATEMENTS {
                        return Err(PolicyError::TooManyStatements);
                    }
                }
                if let Some(bracket) = open.last_mut().filter(|bracket| bracket.tried) {
                    again = again.saturating_add(u32::from(!bracket.again));
                    (bracket.again, bracket.query) = (true, true);
                }
            }
            Some('-') if minus_signs >= MAX_MINUS_SIGNS => return Err(PolicyError::TooNested),
            Some('-') => minus_signs = minus_signs.saturating_add(1),
            Some('`') => drop(chars.find(|c| *c == '`')),
            Some('"') => skip_text(&mut chars),
            Some(_) => {}
        }
        before = next.filter(|c| !c.is_whitespace()).unwrap_or(before);
        let length = u64::try_from(left.saturating_sub(chars.as_str().len())).unwrap_or(u64::MAX);
        let more = 1_u64.checked_shl(now).unwrap_or(u64::MAX).saturating_sub(1);
        read = read.saturating_add(length.saturating_mul(more));
    }
    Err(PolicyError::TooDeep { found: read })
}

/// A bracket that is open.
struct Bracket {
    /// Whether the parser tries it as a comprehension: all but parentheses.
    tried: bool,
    /// Whether what stands here now is read again.
    again: bool,
    /// Whether a query is in it, all of which is.
    query: bool,
    /// That have ended in it.
    statements: usize,
}

/// Whether a character is of the word `in`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    BeginsIn,
    EndsIn,
    Other,
}

fn is_rest_of_in(rest: &str) -> bool {
    rest.strip_prefix('n').is_some_and(|rest| !rest.starts_with(is_word))
}

/// What stands for a comment: the space before the end of its line.
fn skip_comment(chars: &mut std::str::Chars<'_>) -> char {
    let rest = chars.as_str();
    let end = rest.find('\n').unwrap_or(rest.len());
    *chars = rest.get(end..).unwrap_or_default().chars();
    ' '
}

/// A text in quotes ends on its line, as the engine has it too.
fn skip_text(chars: &mut std::str::Chars<'_>) {
    while let Some(c) = chars.next() {
        match c {
            '"' | '\n' => return,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii()
}

/// Takes a `policy_data := <JSON>` that ends the text out of the rules, for each query to put it under another name that
/// the rules do not use: as a rule it would be built anew for each decision. Rego reads JSON as JSON, so the rules see
/// the same value. Where the tail is anything else the text stays as it is.
fn split_data(text: &str) -> (&str, Option<Value>) {
    let split = text.rsplit_once(&format!("\n{DATA} := "));
    let split = split.filter(|(rules, tail)| !rules.contains(CONSTANTS) && lines_fit(tail));
    let parsed = split.and_then(|(rules, tail)| Some((rules, Value::from_json_str(tail).ok()?)));
    let Some((rules, data)) = parsed else { return (text, None) };
    (rules, Some(data))
}

/// The limit holds for the whole text, also for the part that the engine does not read.
fn lines_fit(tail: &str) -> bool {
    let most = usize::try_from(MAX_COLUMNS).unwrap_or(usize::MAX);
    tail.lines().all(|line| line.len() < most)
}
