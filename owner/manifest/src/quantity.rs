//! Kubernetes quantities (`500m`, `1.5Gi`, `1e3`).

/// A quantity in billionths, which is Kubernetes' own finest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(u128);

const NANO: u128 = 1_000_000_000;
/// Longest text, which keeps every product below within 128 bits.
const MAX_DIGITS: usize = 18;

/// Suffix and its size in billionths (Kubernetes API, `resource.Quantity`).
const SUFFIXES: [(&str, u128); 16] = [
    ("Ki", NANO << 10),
    ("Mi", NANO << 20),
    ("Gi", NANO << 30),
    ("Ti", NANO << 40),
    ("Pi", NANO << 50),
    ("Ei", NANO << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", NANO * 1_000),
    ("M", NANO * 1_000_000),
    ("G", NANO * NANO),
    ("T", NANO * NANO * 1_000),
    ("P", NANO * NANO * 1_000_000),
    ("E", NANO * NANO * NANO),
    ("", NANO),
];

impl Quantity {
    /// Reads a quantity that is not negative.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let unit = match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
            Some((_, unit)) => *unit,
            None => exponent(suffix)?,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() > MAX_DIGITS || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
        let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        Some(Self(digits.checked_mul(unit)?.div_ceil(divisor)))
    }

    /// Thousandths, rounded up.
    pub(crate) fn milli(self) -> Option<u64> {
        u64::try_from(self.0.div_ceil(NANO / 1_000)).ok()
    }

    /// Whole units, rounded up.
    pub(crate) fn units(self) -> Option<u64> {
        u64::try_from(self.0.div_ceil(NANO)).ok()
    }

    /// How often `divisor` goes in, rounded up.
    pub(crate) fn divided(self, divisor: Self) -> Option<u128> {
        (divisor.0 > 0).then(|| self.0.div_ceil(divisor.0))
    }
}

fn exponent(suffix: &str) -> Option<u128> {
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = u32::try_from(exponent.checked_add(9)?).ok()?;
    (power <= 27).then(|| 10_u128.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let check = |text: &str, milli: Option<u64>| {
            assert_eq!(Quantity::parse(text).and_then(Quantity::milli), milli, "{text}");
        };
        check("1", Some(1000));
        check("500m", Some(500));
        check("0.1", Some(100));
        check(".5", Some(500));
        check("1.", Some(1000));
        check("1u", Some(1));
        check("2k", Some(2_000_000));
        check("1e3", Some(1_000_000));
        check("12E-1", Some(1200));
        check("1Ki", Some(1_024_000));
        for bad in ["", "m", "-1", "1mi", "1 Gi", "1e", "1e99", "9999999999999999999", "1,5", "0x1"]
        {
            check(bad, None);
        }
        assert_eq!(Quantity::parse("1.5Gi").and_then(Quantity::units), Some(3 << 29));
        assert_eq!(Quantity::parse("16Ei").and_then(Quantity::units), None);
        let divided = Quantity::parse("1Gi").unwrap().divided(Quantity::parse("1Mi").unwrap());
        assert_eq!(divided, Some(1024));
    }
}
