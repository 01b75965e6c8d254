//! What a pod is called: who names it, and which names an honest cluster can give it.
//!
//! Sources: `SimpleNameGenerator` of Kubernetes' API server (what a name begins with is cut to 58
//! characters, 5 follow), and the controllers of the workload kinds for what the names begin with.

use serde::{Deserialize, Serialize};

use crate::{HostFact, Text};

/// Most characters before the API server's suffix.
const MAX_BASE_CHARS: usize = 58;
/// Characters of the API server's suffix.
const SUFFIX_CHARS: usize = 5;
/// Of which characters the suffix is: no vowels, nothing that is mistaken for another.
const SUFFIX: &str = "bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CLASS: &str = "[bcdfghjklmnpqrstvwxz2456789]";
/// Characters that the decimal digits of a template's hash become.
const HASH: &str = "456789bcdf";
const HASH_CLASS: &str = "[4-9bcdf]";
/// A 32-bit hash has at most as many digits.
const MAX_HASH_CHARS: usize = 10;
/// Digits of the minutes since 1970 (now 8), and of the seconds that older clusters put there (10).
const TIME_CHARS: [usize; 3] = [8, 9, 10];
const DIGIT_CLASS: &str = "[0-9]";
const FIRST_DIGIT_CLASS: &str = "[1-9]";

/// Who names the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodName {
    /// `metadata.name` of a Pod.
    Fixed(String),
    /// Something that appends what it likes, of lower-case letters, digits and `-`.
    Generated {
        /// What every name starts with, `-` included.
        prefix: String,
    },
    /// The API server: the pieces, cut to 58 characters, then 5 random ones (`generateName`).
    Suffixed {
        /// What every name starts with, `-` included.
        base: Vec<NamePiece>,
    },
    /// A StatefulSet: its name, `-`, and the pod's ordinal, which is the host's to say.
    Ordinal {
        /// Name of the StatefulSet.
        set: String,
    },
    /// An Indexed Job: its name, `-`, the pod's completion index, `-`, 5 random characters.
    Indexed {
        /// Name of the Job.
        job: String,
        /// `spec.completions`: indexes are below.
        completions: u32,
    },
}

/// A piece of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamePiece {
    /// From the manifest.
    Text(String),
    /// 5 random characters of the API server.
    Suffix,
    /// A Deployment's hash of its template.
    TemplateHash,
    /// A CronJob's time of a run.
    Time,
}

/// One character of a name: known, or of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Atom {
    Char(char),
    Class(&'static str),
}

impl PodName {
    /// The name as a text: fixed, or with the host's part at its place.
    pub fn text(&self) -> Text {
        match self {
            Self::Fixed(name) => name.as_str().into(),
            Self::Ordinal { set } => {
                let mut text = Text::from(format!("{set}-"));
                text.push(&Text::host(HostFact::PodIndex));
                text
            }
            _ => Text::host(HostFact::PodName),
        }
    }

    /// A pattern (syntax of RE2 and regorus) that matches the names an honest cluster can give, whole.
    pub fn pattern(&self) -> String {
        let inner = match self {
            Self::Fixed(name) => escaped(name),
            Self::Generated { prefix } => format!("{}[a-z0-9-]*[a-z0-9]", escaped(prefix)),
            Self::Ordinal { set } => format!("{}-(0|[1-9][0-9]{{0,9}})", escaped(set)),
            Self::Suffixed { base } => alternatives(&suffixed(base)),
            Self::Indexed { job, completions } => alternatives(&indexed(job, *completions)),
        };
        format!("^{inner}$")
    }

    /// One of these names, made of hexadecimal digits: equal digits give equal names.
    pub fn example(&self, digits: &str) -> String {
        let suffix = || pick(digits, SUFFIX, SUFFIX_CHARS);
        match self {
            Self::Fixed(name) => name.clone(),
            Self::Generated { prefix } => {
                format!("{prefix}{}", digits.chars().take(SUFFIX_CHARS).collect::<String>())
            }
            Self::Ordinal { set } => format!("{set}-0"),
            Self::Indexed { job, .. } => {
                let room = MAX_BASE_CHARS.saturating_sub("-0-".len());
                format!("{}-0-{}", cut(job, room), suffix())
            }
            Self::Suffixed { base } => {
                let pieces = base.iter().map(|piece| match piece {
                    NamePiece::Text(text) => text.clone(),
                    NamePiece::Suffix => suffix(),
                    NamePiece::TemplateHash => pick(digits, HASH, MAX_HASH_CHARS),
                    NamePiece::Time => "29000000".to_owned(),
                });
                format!("{}{}", cut(&pieces.collect::<String>(), MAX_BASE_CHARS), suffix())
            }
        }
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// As many characters of `alphabet` as asked for, chosen by hexadecimal digits.
fn pick(digits: &str, alphabet: &str, count: usize) -> String {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let places = digits.chars().chain(std::iter::repeat('0')).map(|digit| {
        let place = usize::try_from(digit.to_digit(16).unwrap_or(0)).unwrap_or(0);
        alphabet.get(place.checked_rem(alphabet.len()).unwrap_or(0)).copied().unwrap_or('b')
    });
    places.take(count).collect()
}

/// Every form that the name can have, each of a known length.
fn suffixed(base: &[NamePiece]) -> Vec<Vec<Atom>> {
    let mut forms = vec![Vec::new()];
    for piece in base {
        let more = piece.forms();
        forms = forms
            .iter()
            .flat_map(|form| more.iter().map(|piece| [form.as_slice(), piece].concat()))
            .collect();
    }
    let mut cut_forms: Vec<Vec<Atom>> = Vec::new();
    for mut form in forms {
        form.truncate(MAX_BASE_CHARS);
        form.extend([Atom::Class(SUFFIX_CLASS); SUFFIX_CHARS]);
        if !cut_forms.contains(&form) {
            cut_forms.push(form);
        }
    }
    cut_forms
}

/// The job's name is cut to leave room for the index (`podGenerateNameWithIndex` of Kubernetes).
fn indexed(job: &str, completions: u32) -> Vec<Vec<Atom>> {
    let most = completions.saturating_sub(1).to_string().len();
    let form = |digits: usize| {
        let room = MAX_BASE_CHARS.saturating_sub(digits.saturating_add(2));
        let mut form: Vec<Atom> = job.chars().take(room).map(Atom::Char).collect();
        form.push(Atom::Char('-'));
        form.extend(number(digits, if digits == 1 { DIGIT_CLASS } else { FIRST_DIGIT_CLASS }));
        form.push(Atom::Char('-'));
        form.extend([Atom::Class(SUFFIX_CLASS); SUFFIX_CHARS]);
        form
    };
    (1..=most).map(form).collect()
}

fn number(digits: usize, first: &'static str) -> impl Iterator<Item = Atom> {
    let rest = std::iter::repeat_n(Atom::Class(DIGIT_CLASS), digits.saturating_sub(1));
    std::iter::once(Atom::Class(first)).chain(rest)
}

impl NamePiece {
    fn forms(&self) -> Vec<Vec<Atom>> {
        match self {
            Self::Text(text) => vec![text.chars().map(Atom::Char).collect()],
            Self::Suffix => vec![vec![Atom::Class(SUFFIX_CLASS); SUFFIX_CHARS]],
            Self::TemplateHash => {
                (1..=MAX_HASH_CHARS).map(|chars| vec![Atom::Class(HASH_CLASS); chars]).collect()
            }
            Self::Time => TIME_CHARS.map(|chars| number(chars, FIRST_DIGIT_CLASS).collect()).into(),
        }
    }
}

/// One pattern for all forms: what they begin and end with is written once.
fn alternatives(forms: &[Vec<Atom>]) -> String {
    let is_char = |atom: &&Atom| matches!(atom, Atom::Char(_));
    let lead = common(forms.iter().map(|form| form.iter().take_while(is_char)));
    let rests: Vec<&[Atom]> = forms.iter().filter_map(|form| form.get(lead.len()..)).collect();
    let tail = without_run(common(rests.iter().map(|rest| rest.iter().rev())), &rests);
    let middles: Vec<&[Atom]> =
        rests.iter().filter_map(|rest| rest.get(..rest.len().saturating_sub(tail.len()))).collect();
    let tail: Vec<Atom> = tail.into_iter().rev().collect();
    let middle = match (middles.as_slice(), run(&middles)) {
        ([only], _) => rendered(only),
        (_, Some(run)) => run,
        (many, None) => {
            let many: Vec<String> = many.iter().map(|atoms| rendered(atoms)).collect();
            format!("({})", many.join("|"))
        }
    };
    format!("{}{middle}{}", rendered(&lead), rendered(&tail))
}

/// A tail, last character first, without the part that belongs to a run of the longest form.
fn without_run(mut tail: Vec<Atom>, rests: &[&[Atom]]) -> Vec<Atom> {
    let longest = rests.iter().max_by_key(|rest| rest.len());
    let before = longest.and_then(|rest| rest.iter().rev().nth(tail.len()));
    while before.is_some() && tail.last() == before {
        tail.pop();
    }
    tail
}

/// What all begin with.
fn common<'a>(all: impl Iterator<Item = impl Iterator<Item = &'a Atom>>) -> Vec<Atom> {
    let mut shared: Option<Vec<Atom>> = None;
    for atoms in all {
        shared = Some(match shared {
            None => atoms.copied().collect(),
            Some(shared) => {
                let equal = shared.into_iter().zip(atoms).take_while(|(one, other)| one == *other);
                equal.map(|(one, _)| one).collect()
            }
        });
    }
    shared.unwrap_or_default()
}

/// Runs of one class, of all lengths from the least to the most.
fn run(middles: &[&[Atom]]) -> Option<String> {
    let class = match middles.iter().find_map(|middle| middle.first())? {
        Atom::Class(class) => *class,
        Atom::Char(_) => return None,
    };
    let mut lengths: Vec<usize> = middles.iter().map(|middle| middle.len()).collect();
    lengths.sort_unstable();
    let (least, most) = (*lengths.first()?, *lengths.last()?);
    let of_class =
        middles.iter().all(|middle| middle.iter().all(|atom| *atom == Atom::Class(class)));
    let whole = (least..=most).eq(lengths.iter().copied());
    (of_class && whole).then(|| format!("{class}{{{least},{most}}}"))
}

fn rendered(atoms: &[Atom]) -> String {
    let mut out = String::new();
    let mut rest = atoms;
    while let Some((first, _)) = rest.split_first() {
        let count = match first {
            Atom::Char(_) => 1,
            Atom::Class(_) => rest.iter().take_while(|atom| *atom == first).count(),
        };
        match (first, count) {
            (Atom::Char(c), _) => out += &escaped(&c.to_string()),
            (Atom::Class(class), 1) => out += class,
            (Atom::Class(class), count) => out += &format!("{class}{{{count}}}"),
        }
        rest = rest.get(count..).unwrap_or_default();
    }
    out
}

/// A text as a pattern that matches nothing but itself.
fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || !c.is_ascii();
    text.chars().fold(String::new(), |mut out, c| {
        if !plain(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
