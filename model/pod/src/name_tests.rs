use super::*;

fn text(text: &str) -> NamePiece {
    NamePiece::Text(text.into())
}

fn suffixed_name(base: &[NamePiece]) -> PodName {
    PodName::Suffixed { base: base.into() }
}

fn deployment(name: &str) -> PodName {
    suffixed_name(&[text(&format!("{name}-")), NamePiece::TemplateHash, text("-")])
}

fn cron_job(name: &str) -> PodName {
    suffixed_name(&[text(&format!("{name}-")), NamePiece::Time, text("-")])
}

fn indexed_job(name: &str, completions: u32) -> PodName {
    PodName::Indexed { job: name.into(), completions }
}

/// Names that match, and the nearest that do not. The example always matches.
fn check(name: &PodName, fine: &[&str], bad: &[&str]) {
    let pattern = name.pattern();
    let regex = regex::Regex::new(&pattern).unwrap();
    for name in fine {
        assert!(regex.is_match(name), "{name} by {pattern}");
    }
    for name in bad {
        assert!(!regex.is_match(name), "{name} by {pattern}");
    }
    for digits in ["", "0123456789abcdef", "ffffffff", "zz"] {
        let example = name.example(digits);
        let fits = regex.is_match(&example) || (digits.is_empty() && example.ends_with('-'));
        assert!(fits, "example {example} by {pattern}");
    }
    assert!(pattern.len() < 900, "{}: {pattern}", pattern.len());
}

#[test]
fn patterns_are_read_by_people() {
    let pattern = |name: &PodName| name.pattern();
    let safe = "[bcdfghjklmnpqrstvwxz2456789]{5}";
    assert_eq!(pattern(&PodName::Fixed("a.b".into())), r"^a\.b$");
    assert_eq!(pattern(&suffixed_name(&[text("web-")])), format!("^web-{safe}$"));
    assert_eq!(pattern(&deployment("web")), format!("^web-[4-9bcdf]{{1,10}}-{safe}$"));
    assert_eq!(pattern(&indexed_job("j", 3)), format!("^j-[0-9]-{safe}$"));
    assert_eq!(pattern(&PodName::Ordinal { set: "db".into() }), "^db-(0|[1-9][0-9]{0,9})$");
}

#[test]
fn attack_name_that_the_controller_never_gives() {
    let fixed = PodName::Fixed("a.b".into());
    check(&fixed, &["a.b"], &["a-b", "a.b\n", "a.b2", ""]);
    let free = PodName::Generated { prefix: "a.b-".into() };
    check(&free, &["a.b-x", "a.b-1-x"], &["a-b-x", "a.b-", "a.b-x-", "a.b-X", "a.b-x_y"]);
    let set = suffixed_name(&[text("a.b-")]);
    check(&set, &["a.b-bcd24"], &["a-b-bcd24", "a.b-bcd2", "a.b-bcd244", "a.b-abcd2", "a.b-bcd2-"]);
    check(
        &deployment("web"),
        &["web-7c5ddbdf54-x2vwz", "web-4-bbbbb"],
        &[
            "web-x2vwz",
            "web-7c5ddbdf545-x2vwz",
            "web-1c5ddbdf54-x2vwz",
            "web2-7c5-x2vwz",
            "web--x2vwz",
        ],
    );
    check(
        &cron_job("night"),
        &["night-29384655-x2vwz", "night-1763731195-x2vwz"],
        &["night-x2vwz", "night-09384655-x2vwz", "night-2938465-x2vwz", "night-17637311950-x2vwz"],
    );
    check(
        &indexed_job("sum", 100),
        &["sum-0-x2vwz", "sum-99-x2vwz"],
        &["sum-100-x2vwz", "sum-01-x2vwz", "sum-x2vwz", "sum--x2vwz", "sum-1x2vwz"],
    );
    let ordinal = PodName::Ordinal { set: "db".into() };
    check(&ordinal, &["db-0", "db-12"], &["db-", "db-01", "db-1-x2vwz", "db-x", "db"]);
    let generated_job = suffixed_name(&[text("run-"), NamePiece::Suffix, text("-")]);
    check(&generated_job, &["run-bcd24-x2vwz"], &["run-x2vwz", "run-bcd2-x2vwz"]);
}

#[test]
fn long_names_are_cut_as_the_api_server_cuts_them() {
    let cut_name = |chars: usize| "n".repeat(chars);
    // 57 characters and `-` fill the 58
    check(
        &suffixed_name(&[text(&format!("{}-", cut_name(57)))]),
        &[&format!("{}-x2vwz", cut_name(57))],
        &[&format!("{}x2vwz", cut_name(58))],
    );
    check(
        &suffixed_name(&[text(&format!("{}-", cut_name(70)))]),
        &[&format!("{}x2vwz", cut_name(58))],
        &[&format!("{}-x2vwz", cut_name(70)), &format!("{}x2vwz", cut_name(59))],
    );
    // 50, `-`: 7 characters are left of hash and `-`
    let name = cut_name(50);
    check(
        &deployment(&name),
        &[
            &format!("{name}-7c5ddbdx2vwz"),
            &format!("{name}-7c5ddb-x2vwz"),
            &format!("{name}-7-x2vwz"),
        ],
        &[
            &format!("{name}-7c5ddbd-x2vwz"),
            &format!("{name}-7c5ddbx2vwz"),
            &format!("{name}-x2vwz"),
        ],
    );
    let name = cut_name(52);
    check(
        &cron_job(&name),
        &[&format!("{name}-29384x2vwz")],
        &[&format!("{name}-2938x2vwz"), &format!("{name}-29384655-x2vwz")],
    );
    let name = cut_name(57);
    let (one, two) = (cut_name(55), cut_name(54));
    check(
        &indexed_job(&name, 11),
        &[&format!("{one}-0-x2vwz"), &format!("{two}-10-x2vwz")],
        &[&format!("{name}-0-x2vwz"), &format!("{one}-10-x2vwz")],
    );
}
