//! The canonical TOML spelling of a text: a literal string where TOML allows it, else an escaped one.

/// The value's spelling (TOML 1.0, strings).
pub(crate) fn value(text: &str) -> String {
    let printable = |c: char| c == '\t' || c == '\n' || !c.is_control();
    if text.chars().all(printable) && !text.contains("'''") && !text.ends_with('\'') {
        // A newline right after the opening quotes is not part of the value.
        return format!("'''\n{text}'''");
    }
    quoted(text)
}

/// A basic string on one line; also the spelling of every key.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
