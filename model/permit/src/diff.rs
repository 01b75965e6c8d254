//! Where two JSON documents differ.

use serde_json::Value;

/// One place where they differ.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference<'a> {
    /// JSON pointer (RFC 6901).
    pub(crate) field: String,
    /// `None`: absent.
    pub(crate) found: Option<&'a Value>,
    /// `None`: absent.
    pub(crate) expected: Option<&'a Value>,
}

/// The differences in document order, as deep as the two have the same shape. Of lists only the parts between their
/// common beginning and their common end are compared, so that one element more is one difference.
pub(crate) fn differences<'a>(found: &'a Value, expected: &'a Value) -> Vec<Difference<'a>> {
    let mut out = Vec::new();
    compare(String::new(), Some(found), Some(expected), &mut out);
    out
}

fn compare<'a>(
    field: String,
    found: Option<&'a Value>,
    expected: Option<&'a Value>,
    out: &mut Vec<Difference<'a>>,
) {
    match (found, expected) {
        (found, expected) if found == expected => {}
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            for (key, value) in left {
                compare(child(&field, key), Some(value), right.get(key), out);
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                compare(child(&field, key), None, Some(value), out);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => lists(&field, left, right, out),
        (found, expected) => out.push(Difference { field, found, expected }),
    }
}

fn lists<'a>(field: &str, left: &'a [Value], right: &'a [Value], out: &mut Vec<Difference<'a>>) {
    let head = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let (left_rest, right_rest) =
        (left.get(head..).unwrap_or_default(), right.get(head..).unwrap_or_default());
    let tail =
        left_rest.iter().rev().zip(right_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let body = |list: &'a [Value]| list.get(..list.len().saturating_sub(tail)).unwrap_or_default();
    let (left, right) = (body(left_rest), body(right_rest));
    for offset in 0..left.len().max(right.len()) {
        let field = child(field, &head.saturating_add(offset).to_string());
        compare(field, left.get(offset), right.get(offset), out);
    }
}

fn child(field: &str, key: &str) -> String {
    format!("{field}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(found: Value, expected: Value, fields: &[&str]) {
        let differences = differences(&found, &expected);
        let names: Vec<&str> = differences.iter().map(|d| d.field.as_str()).collect();
        assert_eq!(names, fields, "{found} / {expected}");
    }

    #[test]
    fn one_change_is_one_difference() {
        check(json!({ "a": 1 }), json!({ "a": 1 }), &[]);
        check(json!({ "a": 1 }), json!({ "a": 2 }), &["/a"]);
        check(json!({ "a": 1 }), json!({}), &["/a"]);
        check(json!({}), json!({ "a~/b": 1 }), &["/a~0~1b"]);
        check(json!([1, 2, 3]), json!([1, 3]), &["/1"]);
        check(json!([1, 3]), json!([1, 2, 3]), &["/1"]);
        check(json!([2, 1]), json!([1, 2]), &["/0", "/1"]);
        check(json!({ "l": [{ "x": 1 }, 5] }), json!({ "l": [{ "x": 2 }, 5] }), &["/l/0/x"]);
        check(json!({ "a": null }), json!({ "a": {} }), &["/a"]);
    }

    #[test]
    fn absent_and_null_are_told_apart() {
        let (found, expected) = (json!({}), json!({ "a": null }));
        let difference =
            Difference { field: "/a".into(), found: None, expected: Some(&Value::Null) };
        assert_eq!(differences(&found, &expected), [difference]);
    }
}
