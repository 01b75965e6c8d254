//! Invariant: any firmware is measured or refused, twice with the same answer, and another vCPU changes the digest.
#![no_main]

use ah_launch::{LaunchInputs, PAGE_BYTES, measure};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tail: &[u8]| {
    let mut firmware = vec![0; PAGE_BYTES];
    let start = PAGE_BYTES.saturating_sub(tail.len());
    firmware.iter_mut().skip(start).zip(tail).for_each(|(slot, byte)| *slot = *byte);
    let inputs = |vcpus| LaunchInputs {
        firmware: &firmware,
        kernel: b"kernel",
        initrd: b"initrd",
        cmdline: "quiet",
        vcpus,
        vcpu_sig: 0,
        sev_features: 1,
    };
    let one = measure(&inputs(1));
    assert_eq!(one, measure(&inputs(1)));
    if let (Ok(one), Ok(two)) = (one, measure(&inputs(2))) {
        assert_ne!(one, two);
    }
});
