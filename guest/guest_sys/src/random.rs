//! The kernel's random generator: is it seeded, and seeding it from the CPU.
//!
//! The host is the adversary, so only the CPU's own instruction counts as a seed. virtio-rng, a boot loader's seed, interrupt times
//! and disk times are all in the host's hand.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::rand::GetRandomFlags;

use crate::SysError;

/// `RNDADDENTROPY`, `_IOW('R', 0x03, int[2])` (linux/random.h).
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// 64-bit words taken from the CPU: 256 bits, what the kernel's generator needs.
const SEED_WORDS: usize = 4;
/// Tries for each word; Intel's and AMD's manuals advise 10.
const RDRAND_TRIES: usize = 10;

/// `struct rand_pool_info` with its buffer (linux/random.h).
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    seed: [u64; SEED_WORDS],
}

/// True when the kernel's generator has its seed: getrandom(2) without waiting gives bytes.
pub fn is_seeded() -> bool {
    let mut byte = [0_u8; 1];
    matches!(rustix::rand::getrandom(&mut byte, GetRandomFlags::NONBLOCK), Ok(1))
}

/// Fills `bytes` from the kernel's generator; at most 256 bytes, which the kernel gives whole.
///
/// # Errors
/// The generator has no seed, or gave fewer bytes.
pub fn fill(bytes: &mut [u8]) -> Result<(), SysError> {
    let wanted = bytes.len();
    let found = rustix::rand::getrandom(&mut *bytes, GetRandomFlags::NONBLOCK)
        .map_err(|e| SysError::new("read", "random generator", e))?;
    if found == wanted {
        Ok(())
    } else {
        Err(SysError::new("read", "random generator", rustix::io::Errno::AGAIN))
    }
}

/// Gives the kernel's generator 256 bits from RDRAND and credits them.
///
/// # Errors
/// The CPU has no RDRAND or it gives nothing, or the kernel refuses the ioctl.
pub fn seed_from_cpu() -> Result<(), SysError> {
    let seed = cpu_random()
        .ok_or_else(|| SysError::new("draw", "RDRAND", rustix::io::Errno::OPNOTSUPP))?;
    let path = Path::new("/dev/urandom");
    let device =
        File::options().write(true).open(path).map_err(|e| SysError::path("open", path, e))?;
    let info = PoolInfo { entropy_bits: 256, size_bytes: 32, seed };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info and `size_bytes` bytes behind its two integers; `info` is that struct with exactly
    // that many bytes (4 * 8), is fully initialised, has no padding, and outlives the call. The kernel writes nothing.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if result == 0 {
        Ok(())
    } else {
        Err(SysError::path("seed", path, std::io::Error::last_os_error()))
    }
}

fn cpu_random() -> Option<[u64; SEED_WORDS]> {
    if !std::arch::is_x86_feature_detected!("rdrand") {
        return None;
    }
    let mut seed = [0; SEED_WORDS];
    for word in &mut seed {
        // SAFETY: `rdrand` was just seen in CPUID.
        *word = (0..RDRAND_TRIES).find_map(|_| unsafe { rdrand() })?;
    }
    // A generator that is stuck gives the same word again; four equal words from a working one have a chance of 2^-192.
    seed.iter().any(|word| *word != seed[0]).then_some(seed)
}

#[target_feature(enable = "rdrand")]
fn rdrand() -> Option<u64> {
    let mut word = 0;
    (std::arch::x86_64::_rdrand64_step(&mut word) == 1).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_random_differs_from_call_to_call() {
        if std::arch::is_x86_feature_detected!("rdrand") {
            assert_ne!(cpu_random(), cpu_random());
        } else {
            assert_eq!(cpu_random(), None);
        }
    }

    #[test]
    fn kernel_gives_bytes() {
        assert!(is_seeded());
        let mut bytes = [0; 64];
        fill(&mut bytes).unwrap();
        assert_ne!(bytes, [0; 64]);
    }
}
