//! A deterministic EROFS writer and a strict, bounded reader.
#![forbid(unsafe_code)]
