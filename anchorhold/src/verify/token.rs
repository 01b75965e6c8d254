//! `anchorhold verify token`

use ah_verifier::{
    MAX_JWKS_BYTES, MAX_TOKEN_BYTES, TokenError, TokenKeys, VerifiedToken, verify_token,
};
use anyhow::{Context, Result};
use serde_json::Value;

use super::input;
use super::output::{Answer, Fact, Outcome};
use crate::cli::VerifyToken;

pub(super) fn verify(options: &VerifyToken) -> Result<Answer> {
    let token = input::read_text(&options.file, MAX_TOKEN_BYTES)?;
    let keys = TokenKeys::from_json(&input::read(&options.jwks, MAX_JWKS_BYTES)?)
        .with_context(|| format!("{}", options.jwks.display()))?;
    let now = input::now(options.now.as_deref())?;
    match verify_token(token.trim(), &keys, options.issuer.as_deref(), now) {
        Ok(token) => {
            let facts = facts(&token, options.issuer.is_some());
            let form = format!("jwt, {} by key {}", token.algorithm(), token.kid());
            Ok(Answer { kind: "token", form, facts, outcome: Outcome::Believed })
        }
        Err(error @ TokenError::Malformed { part: "form" }) => {
            Err(error).with_context(|| format!("{}", options.file.display()))
        }
        Err(error) => Ok(Answer::refused("token", "jwt", error.check(), &error)),
    }
}

/// Names of claims are the issuer's, so they go into the value.
fn facts(token: &VerifiedToken, issuer_checked: bool) -> Vec<Fact> {
    let claims = token.claims().iter().map(|(name, value)| Fact {
        name: "claim",
        // a claim's text may be whoever's that asked for the token
        found: format!("{name} = {}", text(value)).replace(char::is_control, " "),
        meaning: meaning(name),
    });
    let mut facts: Vec<_> = claims.collect();
    if !issuer_checked {
        let found = "not compared: see --issuer".to_owned();
        facts.push(Fact { name: "issuer", found, meaning: "any issuer with these keys will do" });
    }
    facts
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn meaning(claim: &str) -> &'static str {
    let known = CLAIMS.iter().find(|(name, _)| *name == claim);
    known.map_or("no meaning known here", |(_, meaning)| *meaning)
}

/// Claims of attestation tokens, as Microsoft Azure Attestation names them.
const CLAIMS: &[(&str, &str)] = &[
    ("exp", "until when the token holds, seconds since 1970"),
    ("iat", "when it was issued"),
    ("nbf", "from when on it holds"),
    ("iss", "who issued it"),
    ("jti", "name of this very token"),
    ("nonce", "what the asker sent along"),
    ("x-ms-ver", "version of the set of claims"),
    ("x-ms-attestation-type", "kind of evidence"),
    ("x-ms-policy-hash", "attestation policy that the issuer applied"),
    ("x-ms-compliance-status", "whether the image is one that the cloud stands for"),
    ("x-ms-runtime", "runtime data that REPORT_DATA is the hash of"),
    ("x-ms-inittime", "init-time data that HOST_DATA is the hash of"),
    ("x-ms-isolation-tee", "the TEE's own claims below a confidential VM's"),
    ("x-ms-sevsnpvm-launchmeasurement", "launch digest"),
    ("x-ms-sevsnpvm-hostdata", "what the host had to fix at launch: digest of the policy"),
    ("x-ms-sevsnpvm-reportdata", "what the guest asked to be signed"),
    ("x-ms-sevsnpvm-reportid", "this launch of the guest"),
    ("x-ms-sevsnpvm-is-debuggable", "true: the host may read and write the guest"),
    ("x-ms-sevsnpvm-migration-allowed", "true: a migration agent may move the guest"),
    ("x-ms-sevsnpvm-smt-allowed", "true: the other thread of a core may be somebody else's"),
    ("x-ms-sevsnpvm-vmpl", "privilege level that asked; 0 is the highest"),
    ("x-ms-sevsnpvm-guestsvn", "version of the guest's image"),
    ("x-ms-sevsnpvm-bootloader-svn", "security version of the boot loader"),
    ("x-ms-sevsnpvm-tee-svn", "security version of the security processor's system"),
    ("x-ms-sevsnpvm-snpfw-svn", "security version of the SNP firmware"),
    ("x-ms-sevsnpvm-microcode-svn", "security version of the microcode"),
    ("x-ms-sevsnpvm-idkeydigest", "key that signed the ID block"),
    ("x-ms-sevsnpvm-authorkeydigest", "key that signed the ID key"),
    ("x-ms-sevsnpvm-familyId", "free text of the ID block's signer"),
    ("x-ms-sevsnpvm-imageId", "free text of the ID block's signer"),
    ("x-ms-sevsnpvm-chip-family", "processor line"),
    ("x-ms-sevsnpvm-chipid", "the very processor"),
];
