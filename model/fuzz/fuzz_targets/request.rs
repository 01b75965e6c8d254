//! Bytes of the host as a request of any method.
//!
//! Invariant: decoding never panics; what decodes encodes to bytes that decode to the same request, has a policy
//! input (unless it is a symlink with a target that is no text), and comes back from that input.
#![no_main]

use ah_agent_api::{METHODS, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&method, bytes)) = data.split_first() else { return };
    let method = METHODS[usize::from(method) % METHODS.len()];
    let Ok(request) = Request::decode(method.name, bytes) else { return };
    let again = Request::decode(method.name, &request.encode().unwrap()).unwrap();
    assert_eq!(again, request);
    let Ok(input) = request.to_input() else { return };
    let back = Request::from_json(method.name, input.clone()).unwrap();
    assert_eq!(back.to_input().unwrap(), input);
});
