//! The key-provider protocol's documents: what is to be unwrapped, and what came out (ocicrypt, `keyprovider` protocol).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::base64;
use crate::service::WrappedData;

/// The one agent that is answered for.
const AGENT: &str = "skr";
/// Longest document, bytes.
const MAX_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct Input {
    op: String,
    #[serde(default)]
    keyunwrapparams: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    dc: Config,
    annotation: String,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Parameters")]
    parameters: HashMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Annotation {
    kid: String,
    wrapped_data: String,
    #[serde(default)]
    iv: String,
    #[serde(default)]
    wrap_type: String,
    #[serde(default)]
    kms_endpoint: String,
    #[serde(default)]
    attester_endpoint: String,
}

/// What is to be unwrapped, with which key.
pub(super) fn read(input: &[u8]) -> Result<WrappedData, String> {
    if input.len() > MAX_BYTES {
        return Err(format!("input has {} bytes, expected at most {MAX_BYTES}", input.len()));
    }
    let input: Input = serde_json::from_slice(input)
        .map_err(|error| format!("input is not of the key-provider protocol: {error}"))?;
    let params = match (input.op.as_str(), input.keyunwrapparams) {
        ("keyunwrap", Some(params)) => params,
        _ => return Err("op is not \"keyunwrap\" with keyunwrapparams".to_owned()),
    };
    check_agent(&params.dc)?;
    let text = base64::standard(&params.annotation)
        .map_err(|error| format!("annotation is not base64: {error}"))?;
    let annotation: Annotation = serde_json::from_slice(&text)
        .map_err(|error| format!("annotation is not as expected: {error}"))?;
    if !annotation.iv.is_empty() || !matches!(annotation.wrap_type.as_str(), "" | "rsa_3072") {
        return Err("annotation is wrapped otherwise than by wrap_type \"rsa_3072\"".to_owned());
    }
    Ok(WrappedData {
        data: base64::standard(&annotation.wrapped_data)
            .map_err(|error| format!("wrapped_data is not base64: {error}"))?,
        kid: annotation.kid,
        akv_endpoint: annotation.kms_endpoint,
        maa_endpoint: annotation.attester_endpoint,
    })
}

fn check_agent(config: &Config) -> Result<(), String> {
    let named = config.parameters.get("attestation-agent").and_then(|values| values.first());
    let named = named.ok_or("parameter attestation-agent is missing")?;
    let agent = base64::standard(named).unwrap_or_default();
    match agent.eq_ignore_ascii_case(AGENT.as_bytes()) {
        true => Ok(()),
        false => Err(format!("attestation-agent is not {AGENT:?}: another agent is meant")),
    }
}

/// The answer's document.
pub(super) fn answer(data: &Zeroizing<Vec<u8>>) -> Vec<u8> {
    json!({
        "keywrapresults": {"annotation": null},
        "keyunwrapresults": {"optsdata": base64::to_standard(data)},
    })
    .to_string()
    .into_bytes()
}
