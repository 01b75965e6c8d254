//! Pages for people print what the commands print.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{COMMAND, Desk, Ran};

/// Digests, sizes and times are another version's or another machine's to change.
fn masked(line: &str) -> String {
    let word = |word: &str| {
        let digits = |c: char| c.is_ascii_hexdigit();
        let hex = word.split(|c: char| !digits(c)).any(|run| run.len() >= 12);
        let number = word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        if hex || number { "#".to_owned() } else { word.to_owned() }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Runs a line of the page as a shell would, both streams together.
fn shell(desk: &Desk, line: &str) -> Vec<String> {
    let bin = Path::new(COMMAND).parent().unwrap();
    let mut command: Command = desk.command("/bin/sh");
    command.args(["-c", &format!("{{ {line}; }} 2>&1")]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let ran = Ran::of(line.to_owned(), command, "");
    ran.out.lines().map(str::to_owned).collect()
}

/// Runs the commands of a `console` part: the part as it prints now.
fn printed(desk: &Desk, part: &[&str]) -> Vec<String> {
    let commands = part.iter().filter_map(|line| line.strip_prefix("$ "));
    let runs = commands
        .flat_map(|command| std::iter::once(format!("$ {command}")).chain(shell(desk, command)));
    runs.collect()
}

/// The page with what its commands print now. Other parts are files, named by a comment in their first line.
fn page_now(desk: &Desk, page: &str) -> String {
    let mut out = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push(line.to_owned());
        let Some(kind) = line.strip_prefix("```") else { continue };
        let part: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if kind == "console" {
            out.extend(printed(desk, &part));
        } else if kind == "text" {
            // of another machine
            out.extend(part.iter().map(|line| (*line).to_owned()));
        } else {
            let name = part[0].trim_start_matches(['#', '/', ' ']);
            // JSON has no comments.
            desk.write(name, &part[usize::from(kind == "json")..].join("\n"));
            out.extend(part.iter().map(|line| (*line).to_owned()));
        }
        out.push("```".to_owned());
    }
    out.push(String::new());
    out.join("\n")
}

#[track_caller]
fn check(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let now = page_now(&Desk::new(), &text);
    let mask = |page: &str| page.lines().map(masked).collect::<Vec<_>>();
    if mask(&text) != mask(&now) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
        fs::write(&file, now).unwrap();
        panic!("{page} prints something else; as it would be now: {}", file.display());
    }
}

#[test]
fn the_page_on_policies_prints_what_the_commands_print() {
    check("docs/policy.md");
}

#[test]
fn the_first_page_prints_what_the_commands_print() {
    check("README.md");
}
