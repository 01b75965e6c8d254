//! The attested exchange with a key service, and the socket that containers use to get evidence and keys.
#![forbid(unsafe_code)]
