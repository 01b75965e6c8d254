//! Each route with the roles that it needs, and callers of every kind.

use std::collections::BTreeSet;

use crate::support::*;
use reqwest::{Identity, Method};
use serde_json::{Value, json};

/// Every guarded route with the roles that pass its guard.
const GUARDED: &[(&str, &str, &[&str])] = &[
    ("GET", "/keys?api-version=7.4", &["importer", "auditor", "admin"]),
    ("PUT", "/keys/k?api-version=7.4", &["importer"]),
    ("POST", "/keys/k/create?api-version=7.4", &["importer"]),
    ("POST", "/keys/k/rotate?api-version=7.4", &["importer"]),
    ("GET", "/keys/k?api-version=7.4", &["importer", "auditor", "admin"]),
    ("GET", "/keys/k/?api-version=7.4", &["importer", "auditor", "admin"]),
    ("GET", "/keys/k/versions?api-version=7.4", &["importer", "auditor", "admin"]),
    ("GET", "/keys/k/v?api-version=7.4", &["importer", "auditor", "admin"]),
    ("PATCH", "/keys/k?api-version=7.4", &["admin"]),
    ("PATCH", "/keys/k/v?api-version=7.4", &["admin"]),
    ("DELETE", "/keys/k?api-version=7.4", &["admin"]),
    ("POST", "/keys/k/release?api-version=7.4", &["releaser"]),
    ("POST", "/keys/k//release?api-version=7.4", &["releaser"]),
    ("POST", "/keys/k/v/release?api-version=7.4", &["releaser"]),
    ("GET", "/v1/log/head", &["auditor"]),
    ("GET", "/v1/log/entries", &["auditor"]),
    ("GET", "/v1/log/inclusion/0", &["auditor"]),
    ("GET", "/v1/log/consistency/0", &["auditor"]),
    ("GET", "/v1/backup", &["admin"]),
];
const OPEN: &[(&str, &str)] = &[
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/identity"),
    ("POST", "/v1/challenge"),
    ("POST", "/v1/release"),
];

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

#[tokio::test]
async fn attack_each_route_without_its_role() {
    let world = World::new().await;
    world.import_oct("k", b"secret").await;
    for (name, path, roles) in GUARDED {
        let (status, answer) = world.call("", method(name), path, Some(json!({}))).await;
        assert_eq!(
            (status.as_u16(), answer["error"]["code"].as_str()),
            (401, Some("Unauthorized")),
            "{name} {path}"
        );
        for role in ROLES {
            let (status, answer) = world.call(role, method(name), path, Some(json!({}))).await;
            let passed =
                !(status == 401 || (status == 403 && answer.to_string().contains("expected role")));
            assert_eq!(passed, roles.contains(&role), "{name} {path} as {role}: {status} {answer}");
            if *name == "DELETE" && passed {
                world.import_oct("k", b"secret").await;
            }
        }
    }
    for (name, path) in OPEN {
        let status = world.call("", method(name), path, Some(json!({}))).await.0;
        assert!(status != 401 && status != 404 && status != 405, "{name} {path}: {status}");
    }
    world.stop().await;
}

/// The description and the two lists above name the same routes: none is forgotten in any of them.
#[tokio::test]
async fn the_description_names_every_route() {
    let world = World::new().await;
    let (_, document) = world.call("", Method::GET, "/v1/openapi.json", None).await;
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (name, operation) in operations.as_object().unwrap() {
            let roles: Vec<&str> = operation["x-roles"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            described.insert((name.to_uppercase(), path.clone(), roles.join(",")));
        }
    }
    let template = |path: &str| {
        let path = path.split('?').next().unwrap();
        let parts = path.split('/').enumerate().map(|(index, part)| match (index, part) {
            (2, "k") => "{name}",
            (3, "v") => "{version}",
            (4, "0") if path.contains("inclusion") => "{seq}",
            (4, "0") => "{size}",
            (_, part) => part,
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let guarded = GUARDED
        .iter()
        .map(|(name, path, roles)| ((*name).to_owned(), template(path), roles.join(",")));
    let open =
        OPEN.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned(), String::new()));
    assert_eq!(described, guarded.chain(open).collect());
    world.stop().await;
}

#[tokio::test]
async fn attack_authorization_that_is_malformed_or_doubled() {
    let world = World::new().await;
    let ask = async |values: &[&str]| {
        let mut request = world.client.get(format!("{}/v1/log/head", world.url));
        for value in values {
            request = request.header("authorization", *value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status() == 401, answer.headers().contains_key("www-authenticate"));
        answer.status().as_u16()
    };
    let good = format!("Bearer {}", world.token("auditor"));
    assert_eq!(ask(&[&good]).await, 200);
    assert_eq!(ask(&[&good.replace("Bearer", "bearer")]).await, 200);
    for bad in [
        &["Bearer"][..],
        &["Bearer "],
        &["Basic dG9rZW4="],
        &[&good[..good.len() - 1]],
        &[&good, &good],
        &["Bearer x", &good],
    ] {
        assert_eq!(ask(bad).await, 401, "{bad:?}");
    }
    world.stop().await;
}

fn with_provider(config: &mut ah_keyserver::Config, folder: &std::path::Path, provider: &Issuer) {
    std::fs::write(folder.join("oidc.json"), provider.jwks()).unwrap();
    let text = std::fs::read_to_string(folder.join("config.toml")).unwrap()
        + &format!(
            "[[provider]]\nissuer = {:?}\naudience = \"keys\"\njwks_file = {:?}\n\
             [[provider.rule]]\nsubject = \"system:serviceaccount:prod:importer\"\nroles = [\"importer\"]\n\
             [[provider.rule]]\nsubject = \"system:serviceaccount:prod:*\"\nroles = [\"auditor\"]\n",
            provider.name,
            folder.join("oidc.json"),
        );
    std::fs::write(folder.join("config.toml"), text).unwrap();
    *config = ah_keyserver::Config::read(&folder.join("config.toml")).unwrap();
}

#[tokio::test]
async fn attack_identity_token_of_another_subject_audience_or_issuer() {
    let provider = Issuer::new("https://login.example");
    let world = World::with(|config, folder| with_provider(config, folder, &provider)).await;
    let ask = async |path: &str, token: &str| {
        let request = world.client.get(format!("{}{path}", world.url)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let token =
        |subject: &str, audience: &str| provider.token(&json!({"sub":subject,"aud":audience}));
    let importer = token("system:serviceaccount:prod:importer", "keys");
    assert_eq!(ask("/keys?api-version=7.4", &importer).await, 200);
    assert_eq!(ask("/v1/log/head", &importer).await, 403, "the first rule that fits decides");
    assert_eq!(ask("/v1/log/head", &token("system:serviceaccount:prod:other", "keys")).await, 200);
    assert_eq!(ask("/v1/log/head", &token("system:serviceaccount:test:other", "keys")).await, 401);
    assert_eq!(ask("/v1/log/head", &token("system:serviceaccount:prod:other", "other")).await, 401);
    let stranger = Issuer::new("https://login.example")
        .token(&json!({"sub":"system:serviceaccount:prod:other","aud":"keys"}));
    assert_eq!(ask("/v1/log/head", &stranger).await, 401);
    // An attestation token is no caller, and a caller's token attests nothing.
    assert_eq!(
        ask(
            "/v1/log/head",
            &world.attest.token(&json!({"sub":"system:serviceaccount:prod:other","aud":"keys"}))
        )
        .await,
        401
    );
    world.import_oct("k", b"secret").await;
    let mut claims = GuestKey::new().claims(HOST_DATA);
    assert_eq!(
        world.release("/keys/k/release", json!({"target":world.attest.token(&claims)})).await.0,
        200
    );
    claims["aud"] = "keys".into();
    assert_eq!(
        world.release("/keys/k/release", json!({"target":provider.token(&claims)})).await.0,
        403
    );
    world.stop().await;
}

/// A client certificate (PEM with its key) under an authority, and that authority.
fn certificate(authority: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str) -> (String, Vec<u8>) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem() + &key.serialize_pem(), certificate.der().to_vec())
}

fn authority() -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (rcgen::Issuer::new(params, key), pem)
}

#[tokio::test]
async fn attack_client_certificate_of_a_stranger() {
    let ((ours, ours_pem), (theirs, _)) = (authority(), authority());
    let (named, _) = certificate(&ours, "auditor.example");
    let (pinned, pinned_der) = certificate(&ours, "any.example");
    let (other, _) = certificate(&ours, "auditor.example.evil");
    let (forged, _) = certificate(&theirs, "auditor.example");
    let world = World::with(|config, folder| {
        std::fs::write(folder.join("client-ca.pem"), &ours_pem).unwrap();
        let callers = std::fs::read_to_string(folder.join("callers.toml")).unwrap()
            + &format!(
                "[[caller]]\nname = \"by name\"\ncertificate_name = \"auditor.example\"\nroles = [\"auditor\"]\n\
                 [[caller]]\nname = \"by digest\"\ncertificate_sha256 = \"{}\"\nroles = [\"auditor\"]\n",
                ah_digest::Sha256::of(pinned_der)
            );
        std::fs::write(folder.join("callers.toml"), callers).unwrap();
        config.tls.client_ca = Some(folder.join("client-ca.pem"));
    })
    .await;
    let ask = async |pem: &str| {
        let identity = Identity::from_pem(pem.as_bytes()).unwrap();
        let client = client(&world.ca_pem).identity(identity).build().unwrap();
        client
            .get(format!("{}/v1/log/head", world.url))
            .send()
            .await
            .map(|answer| answer.status().as_u16())
            .ok()
    };
    assert_eq!(ask(&named).await, Some(200));
    assert_eq!(ask(&pinned).await, Some(200));
    assert_eq!(ask(&other).await, Some(401));
    assert_eq!(ask(&forged).await, None, "the handshake fails");
    // Who shows none is asked for a token, as ever.
    assert_eq!(world.call("auditor", Method::GET, "/v1/log/head", None).await.0, 200);
    assert_eq!(world.call("", Method::GET, "/v1/log/head", None).await.0, 401);
    world.stop().await;
}

#[tokio::test]
async fn a_first_caller_is_made_once_and_its_token_opens_everything() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::with(|config, _| config.callers = None).await;
    let state = world.folder.path().join("state");
    let token = std::fs::read_to_string(state.join("first-token")).unwrap();
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{path:?}"
        );
    }
    let callers = std::fs::read_to_string(state.join("callers.toml")).unwrap();
    assert!(!callers.contains(token.trim()), "only its digest is kept there");
    let ask = async |token: &str| {
        let request = world.client.get(format!("{}/v1/log/head", world.url)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask(token.trim()).await, ask("x").await), (200, 401));
    world.stop().await;
}
