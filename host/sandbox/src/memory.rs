//! How large a VM has to be so that its containers get what their limits say.

/// One part in so many of the containers' memory is the kernel's: its descriptors of pages (64 bytes for each page of 4 KiB) and what
/// it keeps free. Measured with the bare kernel 6.12 at 448, 2240, 8192 and 16384 MiB: docs/node.md, "What pods need of the node".
const CONTAINERS_A_PART: u64 = 32;
/// Bounce buffers of a machine that may have devices which reach the first 4 GiB only (Linux include/linux/swiotlb.h,
/// `IO_TLB_DEFAULT_SIZE`), and the least of an encrypted one.
const BOUNCE_MIB: u64 = 64;
/// From this size on QEMU's q35 has memory above 4 GiB (hw/i386/pc_q35.c, `pc_q35_init`: 0xb0000000 bytes).
const HIGH_FROM_MIB: u64 = 2816;
/// An encrypted machine passes all that devices see through bounce buffers: 6 % of its memory (Linux arch/x86/mm/mem_encrypt.c,
/// `mem_encrypt_setup_arch`).
const ENCRYPTED_PERCENT: u64 = 6;
/// And at most so much (same place).
const ENCRYPTED_MOST_MIB: u64 = 1024;

/// The memory of a VM, MiB: `containers_mib` for the containers, `own_mib` for kernel and agent of a small one, and what grows with
/// its size. `encrypted` where the CPU encrypts it.
pub fn vm_memory_mib(containers_mib: u64, own_mib: u32, encrypted: bool) -> u64 {
    let grown = containers_mib / CONTAINERS_A_PART;
    let plain = containers_mib.saturating_add(own_mib.into()).saturating_add(grown);
    let bounce = if encrypted {
        // of all, the buffers themselves included
        let all = plain.saturating_mul(ENCRYPTED_PERCENT) / (100 - ENCRYPTED_PERCENT);
        // the least is in what a small VM has
        all.clamp(BOUNCE_MIB, ENCRYPTED_MOST_MIB) - BOUNCE_MIB
    } else if plain >= HIGH_FROM_MIB {
        BOUNCE_MIB
    } else {
        0
    };
    plain.saturating_add(bounce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_grows_with_its_containers() {
        let check = |containers, encrypted, expect| {
            assert_eq!(vm_memory_mib(containers, 192, encrypted), expect, "{containers}");
        };
        check(64, false, 258);
        check(64, true, 258);
        check(2048, false, 2304);
        check(2048, true, 2304 + 147 - 64);
        check(2545, false, 2816 + 64);
        check(2544, false, 2815);
        check(65_536, false, 65_536 + 192 + 2048 + 64);
        check(65_536, true, 65_536 + 192 + 2048 + 960);
        check(u64::MAX, true, u64::MAX);
    }

    /// What the bare kernel did not have available at these sizes, and 22 MiB for modules, init and agent.
    #[test]
    fn what_a_kernel_was_seen_to_take_is_covered() {
        for (size, taken) in [(448_u64, 82), (2240, 187), (8192, 422), (16_384, 601)] {
            let containers = size - taken - 22;
            assert!(vm_memory_mib(containers, 192, false) >= size, "{size}");
        }
    }
}
