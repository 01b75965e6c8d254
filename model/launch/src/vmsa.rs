//! The initial state of a virtual processor: the save area of AMD's Architecture Programmer's Manual volume 2, table B-4,
//! as each VMM fills it before launch.

use crate::PAGE_BYTES;

/// Where the boot processor starts: the x86 reset vector.
pub const BSP_RESET_VECTOR: u32 = 0xFFFF_FFF0;

/// Who starts the guest. VMMs differ in details of the initial state, which is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

/// Values that differ between VMMs.
struct Habits {
    cs: u16,
    ss: u16,
    tr: u16,
    rdx: u64,
    mxcsr: u32,
    fcw: u16,
    pat: u64,
}

/// PAT after reset: APM volume 2, section 7.8.2.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

impl Vmm {
    fn habits(self, eip: u32, vcpu_sig: u32) -> Habits {
        let qemu = Habits {
            cs: 0x9B,
            ss: 0x93,
            tr: 0x8B,
            rdx: vcpu_sig.into(),
            mxcsr: 0x1F80,
            fcw: 0x37F,
            pat: PAT_RESET,
        };
        match self {
            Self::Qemu => qemu,
            Self::Ec2 => Habits {
                cs: if eip == BSP_RESET_VECTOR { 0x9A } else { 0x9B },
                ss: 0x92,
                tr: 0x83,
                rdx: 0x600,
                mxcsr: 0,
                fcw: 0,
                pat: PAT_RESET,
            },
            Self::Gce => Habits { rdx: 0x600, mxcsr: 0, fcw: 0, pat: 0x0007_0106, ..qemu },
        }
    }
}

/// The VMSA page of a processor that starts at `eip`.
///
/// `vcpu_sig` is CPUID leaf 1 EAX of the processor model that the guest sees; `sev_features` is SEV_FEATURES (bit 0: SNP).
pub fn save_area(vmm: Vmm, eip: u32, vcpu_sig: u32, sev_features: u64) -> [u8; PAGE_BYTES] {
    let habits = vmm.habits(eip, vcpu_sig);
    let mut area = SaveArea([0; PAGE_BYTES]);
    let data = 0x93;
    area.segment(0x00, 0, data, 0);
    area.segment(0x10, 0xF000, habits.cs, eip & 0xFFFF_0000);
    area.segment(0x20, 0, habits.ss, 0);
    for offset in [0x30, 0x40, 0x50] {
        area.segment(offset, 0, data, 0);
    }
    area.segment(0x60, 0, 0, 0); // GDTR
    area.segment(0x70, 0, 0x82, 0); // LDTR
    area.segment(0x80, 0, 0, 0); // IDTR
    area.segment(0x90, 0, habits.tr, 0);
    area.put(0x0D0, &0x1000u64.to_le_bytes()); // EFER: SVME
    area.put(0x148, &0x40u64.to_le_bytes()); // CR4: MCE
    area.put(0x158, &0x10u64.to_le_bytes()); // CR0: ET
    area.put(0x160, &0x400u64.to_le_bytes()); // DR7
    area.put(0x168, &0xFFFF_0FF0u64.to_le_bytes()); // DR6
    area.put(0x170, &0x2u64.to_le_bytes()); // RFLAGS
    area.put(0x178, &u64::from(eip & 0xFFFF).to_le_bytes()); // RIP
    area.put(0x268, &habits.pat.to_le_bytes());
    area.put(0x310, &habits.rdx.to_le_bytes());
    area.put(0x3B0, &sev_features.to_le_bytes());
    area.put(0x3E8, &1u64.to_le_bytes()); // XCR0: x87
    area.put(0x408, &habits.mxcsr.to_le_bytes());
    area.put(0x410, &habits.fcw.to_le_bytes());
    area.0
}

struct SaveArea([u8; PAGE_BYTES]);

impl SaveArea {
    /// All offsets are constants of this file, far below the page's end.
    fn put(&mut self, offset: usize, field: &[u8]) {
        for (slot, byte) in self.0.iter_mut().skip(offset).zip(field) {
            *slot = *byte;
        }
    }

    fn segment(&mut self, offset: usize, selector: u16, attributes: u16, base: u32) {
        let limit = 0xFFFF_u32;
        let mut segment = Vec::with_capacity(16);
        segment.extend(selector.to_le_bytes());
        segment.extend(attributes.to_le_bytes());
        segment.extend(limit.to_le_bytes());
        segment.extend(u64::from(base).to_le_bytes());
        self.put(offset, &segment);
    }
}
