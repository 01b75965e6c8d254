//! What a plain scalar is, where all tools agree on it.

use serde_json::Value;

use crate::error::YamlProblem;

/// A plain scalar by the YAML 1.2 core schema (section 10.3.2), unless YAML 1.1 reads it otherwise.
pub(crate) fn plain(text: &str) -> Result<Value, YamlProblem> {
    let ambiguous = || Err(YamlProblem::Ambiguous(text.into()));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    // YAML 1.1 booleans (yaml.org/type/bool.html)
    let word = text.to_ascii_lowercase();
    if matches!(word.as_str(), "y" | "n" | "yes" | "no" | "on" | "off") {
        return ambiguous();
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::String(text.into()));
    }
    if let Some(mode) = octal(text) {
        return Ok(mode.into());
    }
    if is_decimal(digits) {
        return match text.strip_prefix('+').unwrap_or(text).parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => ambiguous(),
        };
    }
    if is_float(digits) {
        let number = text.parse().ok().and_then(serde_json::Number::from_f64);
        return number.map_or_else(ambiguous, |number| Ok(Value::Number(number)));
    }
    match looks_numeric(digits) {
        true => ambiguous(),
        false => Ok(Value::String(text.into())),
    }
}

/// `0644`, which the Kubernetes tools read as YAML 1.1 does (octal; yaml.org/type/int.html) and people write for the permissions
/// of files. Longer ones are more likely meant as texts.
fn octal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('0').filter(|digits| (1..=4).contains(&digits.len()))?;
    i64::from_str_radix(digits, 8).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn is_decimal(digits: &str) -> bool {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain && (digits == "0" || !digits.starts_with('0'))
}

fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_fine = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && number(digits)
    });
    is_decimal(whole) && !whole.is_empty() && number(fraction) && exponent_fine
}

/// What YAML 1.1 has for numbers beyond 1.2: octal, hexadecimal, binary, sexagesimal, `_`, `.5`.
fn looks_numeric(digits: &str) -> bool {
    let with = |prefix: &str, allowed: fn(u8) -> bool| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(allowed))
    };
    with("0x", |b| b.is_ascii_hexdigit() || b == b'_')
        || with("0o", |b| b.is_ascii_digit() || b == b'_')
        || with("0b", |b| matches!(b, b'0' | b'1' | b'_'))
        || digits.eq_ignore_ascii_case(".inf")
        || digits.eq_ignore_ascii_case(".nan")
        || is_sexagesimal(digits)
        || (digits.bytes().any(|b| b.is_ascii_digit())
            && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_')
            || (digits.starts_with('.')
                && digits.len() > 1
                && digits.bytes().skip(1).all(|b| b.is_ascii_digit())))
}

/// `12:30:00` and the like: digits up to 59 after each colon (yaml.org/type/int.html).
fn is_sexagesimal(digits: &str) -> bool {
    let mut parts = digits.split(':');
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let first = parts.next().is_some_and(number);
    let rest: Vec<_> = parts.collect();
    first
        && !rest.is_empty()
        && rest.iter().all(|part| {
            number(part.split('.').next().unwrap_or_default())
                && part
                    .split('.')
                    .next()
                    .and_then(|n| n.parse::<u32>().ok())
                    .is_some_and(|n| n < 60)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_plain(text: &str, expect: Option<Value>) {
        let found = plain(text).ok();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn plain_scalars_are_read_in_the_one_common_way() {
        for (text, expect) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("0644", json!(420)),
            ("00", json!(0)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("a", json!("a")),
            ("500m", json!("500m")),
            ("1Gi", json!("1Gi")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("nginx:1.25", json!("nginx:1.25")),
            ("10:99", json!("10:99")),
            ("-", json!("-")),
            ("..", json!("..")),
            ("2024-01-01T00:00:00Z", json!("2024-01-01T00:00:00Z")),
        ] {
            check_plain(text, Some(expect));
        }
    }

    #[test]
    fn scalars_that_tools_read_differently_are_refused() {
        for text in [
            "yes",
            "No",
            "on",
            "y",
            "0689",
            "0644444",
            "-0644",
            "0x1F",
            "0o17",
            "1_000",
            "12:30",
            ".5",
            ".inf",
            "99999999999999999999",
        ] {
            check_plain(text, None);
        }
    }
}
