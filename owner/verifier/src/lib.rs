//! verify(bytes, collateral, now) -> Verified<Report>; pure.
#![forbid(unsafe_code)]
