//! Ways to trust what protects nothing. Everything that comes of it says `software (not confidential)`.

use crate::error::VerifyError;
use crate::quote::QuoteCollateral;
use crate::roots::TrustedRoots;

impl TrustedRoots {
    /// Also trusts the root of a software TEE: whoever holds its folder can sign any report.
    ///
    /// # Errors
    /// [`VerifyError::UnusableRoot`] if `der` is not a self-signed root in AMD's form.
    pub fn danger_with_software_root(self, der: &[u8]) -> Result<Self, VerifyError> {
        self.add_software_root(der)
    }
}

impl QuoteCollateral {
    /// Believes this root (DER) in the place of Intel's: whoever has its key can sign any quote.
    #[must_use]
    pub fn danger_under_software_root(self, der: &[u8]) -> Self {
        self.under_software_root(der)
    }
}
