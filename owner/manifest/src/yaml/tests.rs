use super::*;
use serde_json::json;

fn check(text: &str, expect: Result<Value, &str>) {
    let found =
        parse(text).map(|documents| Value::Array(documents.iter().map(Node::to_json).collect()));
    match (found, expect) {
        (Ok(found), Ok(expect)) => assert_eq!(found, expect),
        (Err(found), Err(expect)) => assert!(found.to_string().contains(expect), "{found}"),
        (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
    }
}

#[test]
fn documents_are_read() {
    check("a: 1\n---\n---\nb: [x, {c: d}]\n", Ok(json!([{"a": 1}, {"b": ["x", {"c": "d"}]}])));
    check("# only\n---\n# comments\n", Ok(json!([])));
    check("a: &x {b: 1}\nc: *x\n", Ok(json!([{"a": {"b": 1}, "c": {"b": 1}}])));
    check("a: |\n  x\n  y\nb: >-\n  x\n  y\n", Ok(json!([{"a": "x\ny\n", "b": "x y"}])));
}

#[test]
fn what_hides_a_meaning_is_refused() {
    check("a: 1\na: 2\n", Err("\"a\" appears twice"));
    check("a: !!binary x\n", Err("tag"));
    check("a: &x {b: 1}\nc:\n  <<: *x\n", Err("merge"));
    check("1: a\n", Err("key is not a text"));
    check("a: [1\n", Err("not valid YAML"));
    check("a: yes\n", Err("manifest:1: \"yes\" is read"));
    let deep = "[".repeat(200) + &"]".repeat(200);
    check(&deep, Err("nesting"));
}

#[test]
fn attack_alias_bomb() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        let items = vec![alias; 10].join(", ");
        text += &format!("a{level}: &a{level} [{items}]\n");
    }
    check(&text, Err("number of values"));
}

#[test]
fn ranges_are_the_bytes_of_each_value() {
    let text = "é: 'ü'\nb:\n  - \"x\"   # c\n  - plain\nc: {d: e}\nf:\n  g: h\n";
    let documents = parse(text).unwrap();
    let check = |path: &str, expect: &str| {
        let node = documents[0].nearest(path);
        assert_eq!(&text[node.range.clone()], expect, "{path}");
    };
    check("é", "'ü'");
    check("b[0]", "\"x\"");
    check("b[1]", "plain");
    check("c", "{d: e}");
    assert_eq!(documents[0].line_of("f.g"), 7);
    assert_eq!(documents[0].line_of("f.g.none"), 7);
}
