//! What each claim means, one line, for people who read an appraisal.

use crate::appraisal::Claim;

impl Claim {
    /// What the claim says about a guest or its machine.
    pub fn meaning(&self) -> &'static str {
        MEANINGS.iter().find(|(name, _)| *name == self.name).map_or("", |(_, meaning)| *meaning)
    }
}

const MEANINGS: &[(&str, &str)] = &[
    ("tee", "what keeps the host out of the guest, by the root of the certificate chain"),
    ("product", "processor line, by its own root key"),
    ("product: refused", "the line is none of those that are no longer believed"),
    ("chip", "the very processor that signed"),
    ("chip: refused", "the processor is none of those that are no longer believed"),
    ("revocation", "whether the vendor took back the certificate that issued the signing key"),
    ("measurement", "launch digest: firmware, kernel, initrd and command line of the guest"),
    ("host data", "what the host had to fix at launch: digest of the initdata with the policy"),
    ("report data", "what the guest asked to be signed: binds key and nonce of this exchange"),
    ("vmpl", "privilege level in the guest that asked; 0 is the highest"),
    ("guest policy: debug", "on: the host may read and write the guest's memory"),
    ("guest policy: migration", "on: a migration agent may move the guest and read its memory"),
    ("guest policy: smt", "on: the other thread of a core may belong to somebody else"),
    ("guest policy: cxl", "on: memory may be on devices behind CXL"),
    ("guest policy: single socket", "on: the guest stays on one processor"),
    ("guest policy: aes-256-xts", "on: memory has to be encrypted with 256 bit keys"),
    ("guest policy: rapl disabled", "on: power readings, a side channel, have to be off"),
    ("guest policy: ciphertext hiding", "on: the host must not see encrypted memory"),
    ("guest policy: page swap disabled", "on: the host cannot take pages away to swap them"),
    ("guest policy: abi", "least firmware interface that the guest starts on"),
    ("tcb", "security versions that the signing key was derived for"),
    ("launch tcb", "security versions that ran when the guest was launched"),
    ("firmware", "version of the security processor's firmware that runs"),
    ("firmware: provisional", "on: the host can still go back to an older firmware"),
    ("mitigations", "verified mitigations, both at launch and now"),
    ("platform: smt", "the machine runs two threads a core"),
    ("platform: tio", "devices can be made part of guests"),
    ("platform: unknown bits", "the platform says something that has no meaning here"),
    ("platform: alias check", "memory modules were checked for aliases (BadRAM)"),
    ("platform: ecc", "memory corrects errors"),
    ("platform: rapl disabled", "power readings, a side channel, are off"),
    ("platform: ciphertext hiding", "the host does not see encrypted memory"),
    ("platform: tsme", "all memory is encrypted, the host's too"),
    ("guest svn", "version of the guest that its ID block states"),
    ("id key", "key that signed the ID block; zero without one"),
    ("author key", "key that signed the ID key; zero without one"),
    ("family id", "free text of the ID block's signer"),
    ("image id", "free text of the ID block's signer"),
    ("report id", "this launch of the guest; another one at each launch"),
    ("mr td", "MRTD: measurement of the guest's first contents, its firmware"),
    ("mr config id", "MRCONFIGID: what the host fixed at launch: digest of the initdata"),
    ("mr owner", "MROWNER: set by the host at launch"),
    ("mr owner config", "MROWNERCONFIG: set by the host at launch"),
    ("mr seam", "MRSEAM: measurement of the TDX module"),
    ("mr signer seam", "MRSIGNERSEAM: who signed the TDX module; zero is Intel"),
    ("rtmr 0", "run-time measurements: configuration of the virtual firmware"),
    ("rtmr 1", "run-time measurements: boot loader and kernel"),
    ("rtmr 2", "run-time measurements: command line and initrd"),
    ("rtmr 3", "run-time measurements: left to the guest"),
    ("tcb status", "how Intel rates the platform's versions today"),
    ("advisories", "Intel's security advisories that these versions are open to"),
    ("tcb evaluation", "number of Intel's rating: a higher one knows newer attacks"),
    ("tee tcb svn", "TEE_TCB_SVN: security versions of the TDX module and its loader"),
    ("fmspc", "family, model, stepping and platform of the processor, by its certificate"),
    ("td attributes: debug", "on: the host may read and write the guest's memory"),
    ("td attributes: migratable", "on: a migration service may move the guest"),
    ("td attributes: septve disabled", "on: the host cannot make the guest fault on its own pages"),
    ("td attributes: perfmon", "on: the guest uses performance counters, a side channel"),
    ("td attributes: key locker", "on: the guest may use Key Locker"),
    ("td attributes: protection keys", "on: the guest may use supervisor protection keys"),
    ("td attributes: other", "bits of TDATTRIBUTES without a meaning here"),
    ("service td", "hash of service guests, which may migrate or read this one; zero without any"),
];

#[cfg(test)]
mod tests {
    use super::MEANINGS;

    #[test]
    fn names_are_unique() {
        for (index, (name, meaning)) in MEANINGS.iter().enumerate() {
            assert!(!meaning.is_empty());
            assert!(!MEANINGS[..index].iter().any(|(other, _)| other == name), "{name}");
        }
    }
}
