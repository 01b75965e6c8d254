//! All unsafe code and raw system calls of the guest.
