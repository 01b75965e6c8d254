//! The one id that a request keeps on its way from the kubelet to the guest.
//!
//! Source: W3C Trace Context, Recommendation of 23 November 2021, section 3.2 (`traceparent`, version 00). containerd puts it
//! into the metadata of its ttrpc calls when its tracing is on.

use std::fmt;
use std::str::FromStr;

/// Name of the header, and of the ttrpc metadata that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// Where a call belongs: the trace, and the span that makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// Text that is no `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "traceparent: expected 00-TRACE-SPAN-FLAGS in lower-case hexadecimal digits, neither TRACE nor SPAN zero"
)]
pub struct TraceParentError;

impl TraceParent {
    /// A span of a trace; `None` when one of the ids is zero. Not sampled: nobody collects it elsewhere.
    pub fn new(trace: u128, span: u64) -> Option<Self> {
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: 0 })
    }

    /// Another span of the same trace; the same span when `span` is zero.
    #[must_use]
    pub fn with_span(self, span: u64) -> Self {
        if span == 0 { self } else { Self { span, ..self } }
    }

    /// Whether who says it keeps the trace (section 3.2.2.5, the flag `sampled`).
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// The ids of trace and span as bytes.
    pub fn to_bytes(self) -> ([u8; 16], [u8; 8]) {
        (self.trace.to_be_bytes(), self.span.to_be_bytes())
    }

    /// The trace's id: 32 digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex(self.trace, 32)
    }

    /// The span's id: 16 digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        Hex(self.span.into(), 16)
    }
}

struct Hex(u128, usize);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = self.1)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            part.bytes().all(lower_hex).then(|| u128::from_str_radix(part, 16).ok())?
        };
        let read = (part(2), part(32), part(16), part(2));
        let (Some(0), Some(trace), Some(span), Some(flags)) = read else {
            return Err(TraceParentError);
        };
        if parts.next().is_some() {
            return Err(TraceParentError);
        }
        let span = u64::try_from(span).map_err(|_| TraceParentError)?;
        let flags = u8::try_from(flags).map_err(|_| TraceParentError)?;
        Self::new(trace, span).map(|parent| Self { flags, ..parent }).ok_or(TraceParentError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn text_comes_back() {
        let parent: TraceParent = TEXT.parse().unwrap();
        assert_eq!(parent.to_string(), TEXT);
        assert_eq!(parent.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.with_span(0), parent);
        assert!(parent.is_sampled());
        assert!(!TEXT.replace("-01", "-02").parse::<TraceParent>().unwrap().is_sampled());
        let (trace, span) = parent.to_bytes();
        assert_eq!((trace[0], trace[15], span[1], span[7]), (0x4b, 0x36, 0xf0, 0xb7));
        let child = parent.with_span(0xb7ad_6b71_6920_3331);
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01");
        assert_eq!(child.span_id().to_string(), "b7ad6b7169203331");
    }

    #[test]
    fn attack_text_that_is_no_id_does_not_reach_a_log() {
        let changed = |from: &str, to: &str| TEXT.replacen(from, to, 1);
        for text in [
            String::new(),
            changed("00-", "01-"),
            changed("4bf9", "4BF9"),
            changed("4bf9", "4bf\n"),
            changed("4bf9", "+bf9"),
            changed("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            changed("00f067aa0ba902b7", &"0".repeat(16)),
            changed("00f067aa0ba902b7", "0f067aa0ba902b7"),
            changed("-01", "-1"),
            changed("-01", "-01-"),
            format!("{TEXT} "),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(TraceParentError), "{text:?}");
        }
    }
}
