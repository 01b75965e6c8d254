//! Ways to trust what protects nothing. Everything that comes of it says `software (not confidential)`.

use crate::error::VerifyError;
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
