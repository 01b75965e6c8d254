//! A request written as JSON, as owners record it for `policy explain` and `policy test`.
//!
//! Invariant: reading never panics; what reads has a policy input, and comes back from that input as the same.
#![no_main]

use ah_agent_api::{METHODS, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&method, json)) = data.split_first() else { return };
    let method = METHODS[usize::from(method) % METHODS.len()];
    let Ok(json) = serde_json::from_slice(json) else { return };
    let Ok(request) = Request::from_json(method.name, json) else { return };
    let Ok(input) = request.to_input() else { return };
    let back = Request::from_json(method.name, input.clone()).unwrap();
    assert_eq!(back.to_input().unwrap(), input);
});
