//! Texts that make the engine call itself, or read again, without many brackets. Each is tried on a stack of 2 MiB, as the agent's threads
//! have it: one that takes more ends the whole test program.

use std::time::Instant;

use ah_agent_api::agent::StartContainerRequest;
use ah_permit::{MAX_DEPTH, MAX_NESTING, MAX_TOP_WORDS, Policy, PolicyError, State, decide};

const HEAD: &str = "package agent_policy\nimport future.keywords.if\nimport future.keywords.in\nimport future.keywords.every\n";
/// What may come again and again in an expression: its beginning, and what follows each time with how much that is of [`MAX_DEPTH`].
const CHAINS: [(&str, &str, usize); 16] = [
    ("1", "+1", 1),
    ("1", "\n+\n1", 1),
    ("1", "+ # and\n1", 1),
    ("count\n([])", "+count\n([])", 7),
    ("1", "*1", 1),
    ("1", "%1", 1),
    ("{1}", "|{1}", 4),
    ("{1}", "&{1}", 4),
    ("1", "==1", 2),
    ("1", "<1", 1),
    ("1", " in 1", 2),
    ("1", " in\n1", 2),
    ("1", "\nin 1", 2),
    ("input", ".a", 1),
    ("input", "[0]", 3),
    ("input", "[_]", 3),
];

fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap()
}

/// Compiles, decides and drops the rules.
fn tried(rules: &str) -> Result<(), PolicyError> {
    let (text, start) = (format!("{HEAD}{rules}\n"), Instant::now());
    let (size, begin) = (text.len(), rules.chars().take(60).collect::<String>());
    let tried = on_small_stack(move || {
        let policy = Policy::compile(&text)?;
        let request = StartContainerRequest { container_id: "a".into(), ..Default::default() };
        let _either = decide(&policy, &State::new(), request);
        Ok(())
    });
    eprintln!("{:>5} ms, {size:>8} bytes: {begin:?}: {tried:?}", start.elapsed().as_millis());
    tried
}

fn rule(expression: &str) -> String {
    format!("StartContainerRequest {{ x := {expression} }}")
}

/// What is tried: its rules are taken, or refused by us before the engine reads them.
fn is_too_long(rules: &str) -> bool {
    match tried(rules) {
        Ok(()) | Err(PolicyError::Rego { .. }) => false,
        Err(PolicyError::TooLong) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn attack_chains_of_operations_that_take_all_of_the_stack() {
    for (begin, more, deep) in CHAINS {
        let chain = |count: usize| rule(&format!("{begin}{}", more.repeat(count)));
        assert!(!is_too_long(&chain((MAX_DEPTH - 20) / deep)), "{more:?}");
        assert!(is_too_long(&chain(MAX_DEPTH)), "{more:?}");
        assert!(is_too_long(&chain(50_000)), "{more:?}");
    }
}

/// One after another they are as deep as one; one in another they add up, in whatever bracket.
#[test]
fn attack_long_chains_one_in_another() {
    let chain = format!("1{}", "+1".repeat(MAX_DEPTH / 2));
    assert!(!is_too_long(&rule(&format!("[{chain}, {chain}, {chain}]"))));
    assert!(!is_too_long(&format!("a := {chain}\nb := {chain}\nc := {chain}\n{}", rule("1"))));
    assert!(!is_too_long(&rule(&format!("{chain}\n    y := {chain}; z := {chain}"))));
    for (open, close) in [("(", ")"), ("[", "][0]"), ("count([", "])"), ("{", "}")] {
        let inside = format!("{open}{chain}{close}{}", "+1".repeat(MAX_DEPTH / 2));
        assert!(is_too_long(&rule(&inside)), "{open}");
        // Behind a comma the operand before it does not count: there is nothing deeper than that.
        let behind = format!("{open}0, {chain}{close}{}", "+1".repeat(MAX_DEPTH / 2));
        assert!(is_too_long(&rule(&behind)), "{open}");
    }
}

/// What stands before a comma in parentheses is an operand, too: `(a, b in c)`.
#[test]
fn attack_operands_before_a_comma_one_in_another() {
    let inside = |each: usize| {
        let behind = " in 1".repeat(each);
        (0..28).fold("1".to_owned(), |inner, _| format!("({inner}, 1{behind})"))
    };
    assert!(!is_too_long(&rule(&inside(2))));
    assert!(is_too_long(&rule(&inside(30))));
}

/// As deep as the bounds allow in brackets and chains at once.
#[test]
fn rules_at_the_bounds_are_read_on_a_small_stack() {
    // The engine itself takes no more than 32.
    let brackets = 28;
    assert!(brackets < MAX_NESTING);
    let each = (MAX_DEPTH - 20 - 3 * brackets) / brackets;
    let more = "+1".repeat(each);
    let left = (0..brackets).fold("1".to_owned(), |inner, _| format!("({inner}){more}"));
    let right = (0..brackets).fold("1".to_owned(), |inner, _| format!("1{more}+({inner})"));
    for expression in [left, right] {
        assert_eq!(tried(&rule(&expression)), Ok(()));
    }
}

/// Each rule is compared with all others.
#[test]
fn attack_more_rules_than_can_be_compared() {
    let one = "StartContainerRequest := true\n";
    for more in ["x { true }\n", "f(a) := a\n", "x[1] { true }\n", "x := 1\n"] {
        let rules = |count: usize| format!("{one}{}", more.repeat(count));
        let _either = tried(&rules(6_000));
        assert_eq!(tried(&rules(MAX_TOP_WORDS)), Err(PolicyError::TooManyRules), "{more}");
    }
}

/// What comes again and again without being deeper is read in a time that grows with its length.
#[test]
fn long_rules_that_are_not_deep() {
    let megabyte = |text: &str| text.repeat(((1 << 20) / text.len()).min(100_000));
    let one = "StartContainerRequest := true";
    for rules in [
        format!("{one} {{ false }}{}", "\nelse := false { false }".repeat(9_000)),
        format!("{one} {{ true{} }}", "\n".to_owned() + &megabyte("  true\n")),
        format!("{one} {{ input.a{} }}", megabyte(" with input.a as\n1 ")),
        format!("{one} {{ some{} a }}", " a,\n".repeat(9)),
        format!("{one}\nx := [{}]", megabyte("1,\n")),
    ] {
        assert_eq!(tried(&rules), Ok(()));
    }
}

/// A second `not` is no expression, and one in another `every` and comprehension is a bracket in another.
#[test]
fn attack_words_that_nest() {
    for rules in [
        format!("StartContainerRequest {{ {} true }}", "not ".repeat(10_000)),
        format!("StartContainerRequest {{ {} true }}", "not\n".repeat(200_000 - 10)),
        format!("StartContainerRequest {{ {} }}", "every x in [1] { ".repeat(200)),
        format!("StartContainerRequest {{ {} }}", "x := [y | y := ".repeat(200)),
        format!("StartContainerRequest {{ {} }}", "not { ".repeat(200)),
        format!("StartContainerRequest {{ x := {} }}", "$\"{".repeat(200)),
        format!("StartContainerRequest if {}true", "if ".repeat(10_000)),
    ] {
        assert!(tried(&rules).is_err());
    }
}

/// A line that ends with a comment ends as any other: what stands behind it is read again.
#[test]
fn attack_queries_whose_lines_end_in_comments() {
    let nested = |line: &str| {
        let open = format!("{{f(a), b{line}").repeat(30);
        format!("StartContainerRequest {{ x := {open}1{} }}", "}".repeat(30))
    };
    for line in ["; ", "\n", " # c\n"] {
        assert!(matches!(tried(&nested(line)), Err(PolicyError::TooDeep { .. })), "{line:?}");
    }
}
