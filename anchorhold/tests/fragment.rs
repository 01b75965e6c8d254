//! Fragments as people type them.

mod support;

use support::{Desk, PLAIN};

fn make(more: &str) -> String {
    format!(
        "policy fragment make -f proxy.yaml IMAGES --feed mesh --version 3 --key platform.pem {more}"
    )
}

#[test]
fn a_fragment_is_made_shown_and_named_by_its_owners_line() {
    let desk = Desk::new();
    let key = desk.run("debug key-gen -o platform.pem").ends(0).out.trim().to_owned();
    desk.write(
        "proxy.yaml",
        &PLAIN.replace("localhost/web", "localhost/db").replace("web", "proxy"),
    );
    let line = format!("key={key} feed=mesh min-version=3");
    desk.run(&make("-o mesh.fragment")).ends(0).says(&line);
    let shown = desk.run("policy fragment show mesh.fragment").ends(0);
    shown.says("feed mesh, version 3").says("container proxy").says("/bin/db").says("MODE=quiet");
    let annotation = desk.run("policy fragment show mesh.fragment --annotation").ends(0).out;
    let carried = ah_policy::fragments_from_annotation(annotation.trim()).unwrap();
    assert_eq!(carried, [desk.read("mesh.fragment")]);
    // The owner's policy names who may.
    let owned = PLAIN.replacen(
        "metadata:\n",
        &format!(
            "metadata:\n  annotations:\n    anchorhold.dev/fragments: issuer=platform {line}\n"
        ),
        1,
    );
    desk.generated("out.yaml", &owned);
    desk.run("policy show out.yaml")
        .ends(0)
        .says("platform, WHO HOLDS THE KEY")
        .says("MAY ADD CONTAINERS");
}

#[test]
fn attack_what_a_fragment_cannot_say_is_not_left_out() {
    let desk = Desk::new();
    desk.run("debug key-gen -o platform.pem").ends(0);
    let limits = "    resources:\n      limits: {memory: 64Mi}\n";
    desk.write("proxy.yaml", &format!("{PLAIN}{limits}"));
    let ran = desk.run(&make("-o mesh.fragment")).ends(1);
    ran.says("which a fragment cannot say").says("hint: leave it out");
    assert!(!desk.path("mesh.fragment").exists());
    desk.write("proxy.yaml", PLAIN);
    let both = desk.run(&make("-o mesh.fragment --platform linux/amd64,linux/arm64")).ends(1);
    both.says("found 2 platforms, expected one").says("hint: ");
    assert!(!desk.path("mesh.fragment").exists());
    desk.run(&make("-o mesh.fragment")).ends(0);
    let text = desk
        .read("mesh.fragment")
        .replace("anchorhold policy fragment 1", "anchorhold policy fragment 2");
    desk.write("other.fragment", &text);
    desk.run("policy fragment show other.fragment").ends(1).says("its first line is not");
}
