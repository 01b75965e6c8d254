//! A block device opened through dm-verity, EROFS and overlayfs becomes a VerifiedRoot.
#![forbid(unsafe_code)]
