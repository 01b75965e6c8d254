//! The description of all routes (OpenAPI 3.1), made from the one table of routes.

use serde_json::{Map, Value, json};

use crate::roles::{Access, ROUTES, Route};

/// The document.
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Anchorhold key service",
            "version": "1",
            "description": "Routes under /keys are those of Azure Key Vault's REST API 7.4; routes under /v1 are this project's own.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if route.path.starts_with("/keys") {
        parameters.push(json!({ "name": "api-version", "in": "query", "required": true, "schema": { "type": "string" } }));
    }
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Done", "content": { "application/json": { "schema": answer(route) } } },
            "default": { "description": "Refused", "content": { "application/json": { "schema": schema("Error") } } },
        },
    });
    if let Some(body) = body(route) {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": body } } });
    }
    if let Access::Roles(roles) = route.access {
        let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
        operation["security"] = json!([{ "bearer": [] }, { "certificate": [] }]);
        operation["x-roles"] = names.into();
    }
    operation
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn body(route: &Route) -> Option<Value> {
    Some(match (route.method, route.path) {
        ("PUT", _) => schema("KeyImport"),
        ("POST", "/keys/{name}/create") => schema("KeyCreate"),
        ("PATCH", _) => schema("KeyUpdate"),
        ("POST", "/v1/release") => schema("Message"),
        ("POST", path) if path.ends_with("/release") => schema("KeyRelease"),
        _ => return None,
    })
}

fn answer(route: &Route) -> Value {
    match (route.method, route.path) {
        (_, "/keys" | "/keys/{name}/versions") => schema("KeyPage"),
        (_, "/v1/release") => schema("Message"),
        (_, "/v1/challenge") => schema("Challenge"),
        (_, "/v1/log/head") => schema("SignedHead"),
        (_, "/v1/log/entries") => schema("LogEntries"),
        (_, "/v1/log/inclusion/{seq}") => schema("InclusionProof"),
        (_, "/v1/log/consistency/{size}") => schema("ConsistencyProof"),
        (_, path) if path.ends_with("/release") => schema("Released"),
        (_, path) if path.starts_with("/keys") => schema("KeyBundle"),
        _ => json!({}),
    }
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The same of a request's body: other members are refused.
fn closed(required: &[&str], properties: Value) -> Value {
    let mut closed = object(required, properties);
    closed["additionalProperties"] = false.into();
    closed
}

fn schemas() -> Value {
    let (text, whole, truth) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "boolean" }));
    let (texts, any) = (json!({ "type": "array", "items": text }), json!({ "type": "object" }));
    let attributes =
        object(&[], json!({ "enabled": truth, "exportable": truth, "nbf": whole, "exp": whole }));
    let policy =
        object(&["data"], json!({ "contentType": text, "data": text, "immutable": truth }));
    let head =
        json!({ "public_key": text, "size": whole, "root": text, "time": text, "signature": text });
    let entry = object(&["seq", "body"], json!({ "seq": whole, "body": text }));
    let page = json!({ "type": "array", "items": object(&["kid"], json!({ "kid": text, "attributes": attributes })) });
    json!({
        "Error": object(&["error"], json!({ "error": object(&["code", "message"], json!({ "code": text, "message": text })) })),
        "KeyImport": closed(&["key"], json!({ "key": any, "Hsm": truth, "hsm": truth, "attributes": attributes, "release_policy": policy })),
        "KeyCreate": closed(&["kty"], json!({
            "kty": text, "key_size": whole, "public_exponent": { "const": 65537 }, "crv": text, "key_ops": texts, "attributes": attributes, "release_policy": policy,
        })),
        "KeyUpdate": closed(&[], json!({ "key_ops": texts, "attributes": attributes, "release_policy": policy })),
        "KeyRelease": closed(&["target"], json!({ "target": text, "nonce": text, "enc": {
            "type": "string", "enum": ["CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"],
        } })),
        "KeyBundle": object(&["key", "attributes"], json!({ "key": any, "attributes": attributes, "release_policy": policy })),
        "KeyPage": object(&["value"], json!({ "value": page, "nextLink": { "type": ["string", "null"] } })),
        "Released": object(&["value"], json!({ "value": text })),
        "Message": object(&["protocol", "message"], json!({ "protocol": text, "message": any })),
        "Challenge": object(&["nonce", "expires_in_s"], json!({ "nonce": text, "expires_in_s": whole })),
        "SignedHead": object(&["public_key", "size", "root", "time", "signature"], head),
        "LogEntries": object(&["entries"], json!({ "entries": { "type": "array", "items": entry } })),
        "InclusionProof": object(&["head", "entry", "path"], json!({ "head": schema("SignedHead"), "entry": entry, "path": texts })),
        "ConsistencyProof": object(&["old_size", "head", "path"], json!({
            "old_size": whole, "head": schema("SignedHead"), "path": texts,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the routes shows in a review as a change of this file.
    #[test]
    fn the_document_is_the_golden_file() {
        let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            made == kept,
            "openapi.json is not what the routes give; UPDATE_GOLDEN=1 writes it"
        );
    }
}
