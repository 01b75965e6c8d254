//! Stands in for the CPU's security processor where there is none; signs reports under a root made on first use. Not confidential.
#![forbid(unsafe_code)]
