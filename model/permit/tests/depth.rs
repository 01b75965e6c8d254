//! Texts that make the engine call itself, or read again, without many brackets. Each is tried on a stack of 2 MiB, as the agent's threads
//! have it: one that takes more ends the whole test program.

use std::time::Instant;

use ah_agent_api::agent::StartContainerRequest;
use ah_permit::{
    MAX_DEPTH, MAX_LOOPS, MAX_NESTING, MAX_STATEMENTS, MAX_TOP_WORDS, Policy, PolicyError, State,
    decide,
};

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
    decided(rules).map(drop)
}

/// Whether they let container `a` be started.
fn decided(rules: &str) -> Result<bool, PolicyError> {
    let (text, start) = (format!("{HEAD}{rules}\n"), Instant::now());
    let (size, begin) = (text.len(), rules.chars().take(60).collect::<String>());
    let tried = on_small_stack(move || {
        let policy = Policy::compile(&text)?;
        let request = StartContainerRequest { container_id: "a".into(), ..Default::default() };
        Ok(decide(&policy, &State::new(), request).is_ok())
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
        Ok(()) => false,
        Err(PolicyError::TooLong | PolicyError::TooManyLoops) => true,
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
    // in any bracket where one `in` has two operands
    let inside = |each: usize| {
        let behind = format!(" in []{}", " in 1".repeat(each));
        (0..8).fold("1".to_owned(), |inner, _| format!("[1 | {inner}, 1{behind}]"))
    };
    assert!(!is_too_long(&rule(&inside(2))));
    assert!(is_too_long(&rule(&inside(20))));
}

/// The engine numbers statements with 16 bits: what stands behind 65,536 of them would be conditions that nobody looks at.
#[test]
fn attack_conditions_behind_more_statements_than_are_numbered() {
    let rules = |statements: usize, id: &str| {
        let before = "  true\n".repeat(statements.saturating_sub(1));
        format!("StartContainerRequest {{\n{before}  input.container_id == \"{id}\"\n}}")
    };
    assert_eq!(decided(&rules(MAX_STATEMENTS, "a")), Ok(true));
    assert_eq!(decided(&rules(MAX_STATEMENTS, "b")), Ok(false));
    for statements in [MAX_STATEMENTS + 1, (1 << 16) + 1, 100_000] {
        assert_eq!(decided(&rules(statements, "b")), Err(PolicyError::TooManyStatements));
        let one_line = rules(statements, "b").replace("true\n", "true;");
        assert_eq!(decided(&one_line), Err(PolicyError::TooManyStatements));
    }
}

/// The engine does what stands behind a loop within it.
#[test]
fn attack_loops_that_take_all_of_the_stack() {
    let deep = format!("1{}", "+1".repeat(MAX_DEPTH - 20));
    // what may be one counts as one
    for (line, counted) in
        [("[0][_]", 2), ("some _ in [0]", 2), ("{\"a\": 0}[_]", 1), ("input[_]", 1)]
    {
        let body = |count: usize| {
            let lines = format!("\n  {line}").repeat(count);
            format!(
                "StartContainerRequest := true\nAllowRequestsFailingPolicy {{{lines}\n  x := {deep}\n  false\n}}"
            )
        };
        assert_eq!(tried(&body(MAX_LOOPS / counted)), Ok(()), "{line}");
        for count in [MAX_LOOPS + 1, 20_000] {
            assert_eq!(tried(&body(count)), Err(PolicyError::TooManyLoops), "{line}");
        }
    }
    let list = |count: usize| rule(&format!("[{}]", vec!["[0][_]"; count].join(",\n")));
    assert_eq!(tried(&list(MAX_LOOPS)), Ok(()));
    assert_eq!(tried(&list(MAX_LOOPS + 1)), Err(PolicyError::TooManyLoops));
    assert_eq!(tried(&list(20_000)), Err(PolicyError::TooManyLoops));
    // Each rule has its own.
    let rules = (0..9)
        .map(|number| list(MAX_LOOPS).replace("StartContainerRequest", &format!("x{number}")));
    assert_eq!(
        tried(&format!("StartContainerRequest := true\n{}", rules.collect::<Vec<_>>().join("\n"))),
        Ok(())
    );
}

/// The engine goes down without end in a function that calls itself.
#[test]
fn attack_functions_that_call_themselves() {
    const ASKED: &str = "StartContainerRequest := true\nAllowRequestsFailingPolicy { f(1) == 2 }\n";
    let refused = |rules: &str| {
        let tried = tried(&format!("{ASKED}{rules}"));
        assert!(matches!(tried, Err(PolicyError::Recursive { .. })), "{rules}: {tried:?}");
    };
    let taken = |rules: &str| assert_eq!(tried(&format!("{ASKED}{rules}")), Ok(()), "{rules}");
    for (circle, row) in [
        ("f(x) { f(x) }", "f(x) { g(x) }\ng(x) { x }"),
        ("f(x) := f(x)", "f(x) := g(x)\ng(x) := x"),
        ("f(x) := y {\n  y := f (x)\n}", "f(x) := y {\n  y := g (x)\n}\ng(x) := x"),
        ("f(x) { f # more\n(x) }", "f(x) { g # more\n(x) }\ng(x) := x"),
        (
            "f(x) { g(x) }\ng(x) { h(x) }\nh(x) { f(x) }",
            "f(x) { g(x) }\ng(x) { h(x) }\nh(x) { x }\ni(x) { f(x) }",
        ),
        ("f(x) { false }\n  f(x) { f(x) }", "f(x) { false }\n  g(x) { f(x) }"),
        ("f(x) { x } else := f(x)", "f(x) { x } else := x\ng(x) { f(x) }"),
        ("f(x) if f(x)", "f(x) if x\ng(x) if f(x)"),
        ("f(x) := x if\nf(x)", "f(x) := x if\ng(x)\ng(x) := x"),
        ("y := 1 f(x) { f(x) }", "f(x) := x y { f(1) }"),
        ("f(x) { data.agent_policy.f(x) }", "f(x) { data.agent_policy.g(x) }\ng(x) { x }"),
        (
            "f(x) { data.agent_policy[\"f\"](x) }",
            "f(x) { data.agent_policy[\"g\"](x) }\ng(x) { x }",
        ),
        ("f(x) { z := [y | y := f(x)] }", "f(x) { z := [y | y := g(x)] }\ng(x) { x }"),
        ("f(x) { count([x]) with count as f }", "f(x) { count([x]) with count as g }\ng(x) := 1"),
        (
            "f(x) { g(x) with h as f }\ng(x) { h(x) }\nh(x) { x }",
            "f(x) { g(x) with h as i }\ng(x) { h(x) }\nh(x) { x }\ni(x) { x }",
        ),
        ("f(x) { true with input.a as f(x) }", "f(x) { true with input.a as g(x) }\ng(x) := x"),
        ("default f(_) := 1\nf(x) { f(x) }", "default f(_) := 1\nf(x) { x }\ng(x) { f(x) }"),
    ] {
        refused(circle);
        taken(row);
    }
    let template = tried(&format!("{ASKED}f(x) := $\"{{f(x)}}\""));
    assert!(template.is_err(), "{template:?}");
    refused("import data.agent_policy.f as g\nf(x) { g(x) }");
    refused("import data.agent_policy as p\nf(x) { p.f(x) }");
    refused("import data.agent_policy\nf(x) { agent_policy.f(x) }");
    // Names alone, and in texts and comments, call nothing.
    taken("f(x) { x.f; y := \"f(x)\"; z := `f(x)` } # f(x)");
    taken("f(x) { object.f; y := [f | f := x] }\nobject := {\"f\": 1}");
    let many = |last: &str| {
        let row = |n: usize| format!("f{n}(x) {{ f{}(x) }}\n", n + 1);
        format!("f(x) {{ x }}\n{}f300(x) {{ {last} }}", (0..300).map(row).collect::<String>())
    };
    taken(&many("x"));
    refused(&many("f150(x)"));
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
    let lines = |text: &str| text.repeat(MAX_STATEMENTS - 2);
    let one = "StartContainerRequest := true";
    for rules in [
        format!("{one} {{ false }}{}", "\nelse := false { false }".repeat(9_000)),
        format!("{one} {{ true{} }}", "\n".to_owned() + &lines("  true\n")),
        format!(
            "{one} {{ input.a{} }}",
            lines(&format!("{} with input.a as\n1 ", " with input.a as 1".repeat(14)))
        ),
        format!("{one} {{ some{} a }}", " a,\n".repeat(9)),
        format!("{one}\nx := [{}]", "1,\n".repeat(100_000)),
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
        "StartContainerRequest { x := $\"{1}\" }".to_owned(),
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
