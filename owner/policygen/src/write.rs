//! JSON as the policy holds it: short lines, no space that is not needed, keys sorted.

use std::io;

use serde_json::Value;

/// A value that fits this stays on one line. Engines that do not raise their limits read 1,024 columns.
const LINE_BYTES: usize = 160;

/// A longer text is written in pieces where lines must be short.
const PIECE_CHARS: usize = 120;

/// How texts are written that do not fit a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    /// On one line all the same: the value is JSON.
    Whole,
    /// In pieces, which Rego joins.
    InPieces,
}

pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write(value, Long::Whole, &mut out);
    out
}

/// The same for an engine that reads short lines only: a Rego term, which is no JSON where a text is long.
pub(crate) fn rego(value: &Value) -> String {
    let mut out = String::new();
    write(value, Long::InPieces, &mut out);
    out
}

/// What is written until it is too long for a line.
#[derive(Default)]
struct Line(Vec<u8>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > LINE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The value on one line, where it fits.
fn line(value: &Value) -> Option<String> {
    let mut line = Line::default();
    serde_json::to_writer(&mut line, value).ok()?;
    String::from_utf8(line.0).ok()
}

fn write(value: &Value, long: Long, out: &mut String) {
    if let Some(compact) = line(value) {
        out.push_str(&compact);
        return;
    }
    match value {
        Value::Array(values) => {
            list(out, '[', ']', values.iter(), |value, out| write(value, long, out));
        }
        Value::Object(map) => list(out, '{', '}', map.iter(), |(key, value), out| {
            out.push_str(&Value::from(key.as_str()).to_string());
            out.push(':');
            write(value, long, out);
        }),
        Value::String(text) if long == Long::InPieces => {
            let chars: Vec<char> = text.chars().collect();
            let pieces = chars.chunks(PIECE_CHARS).map(|piece| piece.iter().collect::<String>());
            out.push_str("concat(\"\",");
            list(out, '[', ']', pieces, |piece, out| out.push_str(&Value::from(piece).to_string()));
            out.push(')');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// Elements that are short share a line.
fn list<T>(
    out: &mut String,
    open: char,
    close: char,
    elements: impl Iterator<Item = T>,
    write: impl Fn(T, &mut String),
) {
    out.push(open);
    let mut line = 0;
    for (index, element) in elements.enumerate() {
        let mut text = String::new();
        write(element, &mut text);
        if index > 0 {
            out.push(',');
        }
        if line == 0 || line + text.len() > LINE_BYTES {
            out.push('\n');
            line = 0;
        }
        line += text.len() + 1;
        out.push_str(&text);
    }
    out.push('\n');
    out.push(close);
}
