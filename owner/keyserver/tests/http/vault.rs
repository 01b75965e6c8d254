//! The vault's routes, as clients of the cloud's vaults use them.

use crate::support::*;
use ah_keyservice::{decode_base64, encode_base64url};
use aws_lc_rs::rsa::KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reqwest::Method;
use serde_json::{Value, json};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_key_is_imported_and_released_in_all_three_ways() {
    let world = World::new().await;
    let imported = world.import_oct("k1", SECRET).await;
    let kid = imported["key"]["kid"].as_str().unwrap();
    let prefix = format!("{}/keys/k1/", world.url);
    assert!(kid.strip_prefix(&prefix).is_some_and(|version| version.len() == 32), "{kid}");
    assert_eq!(
        (imported["key"]["kty"].as_str(), imported["key"].get("k")),
        (Some("oct-HSM"), None)
    );
    assert_eq!(
        imported["release_policy"]["data"],
        policy(AUTHORITY, HOST_DATA)["data"],
        "the same bytes"
    );
    let guest = GuestKey::new();
    let token = world.attest.token(&guest.claims(HOST_DATA));
    let path = kid.strip_prefix(&world.url).unwrap();
    let paths =
        ["/keys/k1/release".to_owned(), "/keys/k1//release".to_owned(), format!("{path}/release")];
    for (path, enc) in
        paths.iter().zip(["CKM_RSA_AES_KEY_WRAP", "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"])
    {
        let (status, answer) =
            world.release(path, json!({"target":token,"enc":enc,"nonce":"n"})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(guest.open(&answer, enc, &world.ca_pem).unwrap(), SECRET);
        let payload = verified_payload(answer["value"].as_str().unwrap(), &world.ca_pem);
        assert_eq!(
            payload["request"],
            json!({"api-version":"7.4","enc":enc,"kid":kid,"nonce":"n"})
        );
    }
    let (status, answer) = world.release("/keys/k1/release", json!({"target":token})).await;
    assert_eq!(status, 200, "the sidecar sends the token only");
    assert_eq!(guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem).unwrap(), SECRET);
    assert!(GuestKey::new().open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem).is_err());
    world.stop().await;
}

#[tokio::test]
async fn attack_release_with_another_guests_or_a_forged_token() {
    let world = World::new().await;
    world.import_oct("k1", SECRET).await;
    let guest = GuestKey::new();
    let ask =
        async |token: String| world.release("/keys/k1/release", json!({"target":token})).await;
    assert_eq!(ask(world.attest.token(&guest.claims(HOST_DATA))).await.0, 200);

    let (status, answer) =
        ask(world.attest.token(&guest.claims(&HOST_DATA.replace('c', "d")))).await;
    assert_eq!((status.as_u16(), code(&answer)), (403, "Forbidden"));
    assert!(answer["error"]["message"].as_str().unwrap().contains("hostdata"), "{answer}");
    let forged = Issuer::new(AUTHORITY).token(&guest.claims(HOST_DATA));
    assert_eq!(ask(forged).await.0, 403);
    let stranger = Issuer::new("https://attest.evil").token(&guest.claims(HOST_DATA));
    assert_eq!(ask(stranger).await.0, 403);
    let mut expired = guest.claims(HOST_DATA);
    expired["exp"] = 1_700_000_000.into();
    assert_eq!(ask(world.attest.token(&expired)).await.0, 403);
    // The policy says nothing of debugging, so it does not mean to allow it.
    let mut debuggable = guest.claims(HOST_DATA);
    debuggable["x-ms-sevsnpvm-is-debuggable"] = true.into();
    let (status, answer) = ask(world.attest.token(&debuggable)).await;
    assert_eq!(status, 403);
    assert!(answer["error"]["message"].as_str().unwrap().contains("debuggable"), "{answer}");
    let mut keyless = guest.claims(HOST_DATA);
    keyless["x-ms-runtime"] = json!({"keys":[]});
    assert_eq!(ask(world.attest.token(&keyless)).await.0, 400);
    assert_eq!(ask("not a token".to_owned()).await.0, 403);
    world.stop().await;
}

#[tokio::test]
async fn attack_key_disabled_not_exportable_deleted_or_of_another_authority() {
    let world = World::new().await;
    world.import_oct("k1", SECRET).await;
    let token = world.attest.token(&GuestKey::new().claims(HOST_DATA));
    let ask = async |name: &str| {
        world.release(&format!("/keys/{name}/release"), json!({"target":token})).await.0
    };
    assert_eq!(ask("k1").await, 200);
    let set = async |enabled: bool| {
        let body = json!({"attributes":{"enabled":enabled}});
        world.call("admin", Method::PATCH, "/keys/k1?api-version=7.4", Some(body)).await.0
    };
    assert_eq!(set(false).await, 200);
    assert_eq!(ask("k1").await, 403);
    assert_eq!(set(true).await, 200);
    assert_eq!(ask("k1").await, 200);
    // Times are told, and do not stop a release.
    let times = json!({"attributes":{"nbf":32_503_680_000u64,"exp":1}});
    assert_eq!(
        world.call("admin", Method::PATCH, "/keys/k1?api-version=7.4", Some(times)).await.0,
        200
    );
    assert_eq!(ask("k1").await, 200);

    let put = async |name: &str, exportable: bool, authority: &str| {
        let body = json!({"key":{"kty":"oct","k":"AAAA"},"attributes":{"exportable":exportable},"release_policy":policy(authority, HOST_DATA)});
        world
            .call("importer", Method::PUT, &format!("/keys/{name}?api-version=7.4"), Some(body))
            .await
            .0
    };
    assert_eq!(put("kept", false, AUTHORITY).await, 200);
    assert_eq!(ask("kept").await, 403);
    assert_eq!(put("other", true, "https://other.example").await, 200);
    assert_eq!(ask("other").await, 403);
    assert_eq!(world.call("admin", Method::DELETE, "/keys/k1?api-version=7.4", None).await.0, 200);
    assert_eq!(ask("k1").await, 404);
    world.stop().await;
}

#[tokio::test]
async fn every_way_of_writing_base64_is_read() {
    let world = World::new().await;
    let secret = [0xfb, 0xef, 0xff, 0x01, 0xfe];
    let text = policy(AUTHORITY, HOST_DATA)["data"].as_str().unwrap().to_owned();
    let policy_bytes = decode_base64(&text).unwrap();
    for (number, (k, data)) in [
        (encode_base64url(secret), encode_base64url(&policy_bytes)),
        (URL_SAFE.encode(secret), URL_SAFE.encode(&policy_bytes)),
        (STANDARD.encode(secret), STANDARD.encode(&policy_bytes)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/keys/k{number}?api-version=7.4");
        let body = json!({"key":{"kty":"oct","k":k},"attributes":{"exportable":true},"release_policy":{"data":data}});
        let (status, answer) = world.call("importer", Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["release_policy"]["data"].as_str().unwrap(), text);
        let guest = GuestKey::new();
        let token = world.attest.token(&guest.claims(HOST_DATA));
        let (_, answer) =
            world.release(&format!("/keys/k{number}/release"), json!({"target":token})).await;
        assert_eq!(guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem).unwrap(), secret);
    }
    world.stop().await;
}

#[tokio::test]
async fn keys_are_made_rotated_described_and_listed_in_pages() {
    let world = World::new().await;
    for (number, (kty, more)) in [
        ("RSA", json!({"key_size":2048})),
        ("EC-HSM", json!({"crv":"P-384"})),
        ("oct", json!({"key_size":128})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = json!({"kty":kty,"attributes":{"exportable":true},"release_policy":policy(AUTHORITY, HOST_DATA)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("/keys/m{number}/create?api-version=7.4");
        let (status, made) = world.call("importer", Method::POST, &path, Some(body)).await;
        assert_eq!((status.as_u16(), made["key"]["kty"].as_str()), (200, Some(kty)), "{made}");
        assert!(["d", "p", "k"].iter().all(|secret| made["key"].get(secret).is_none()));
    }
    let guest = GuestKey::new();
    let token = world.attest.token(&guest.claims(HOST_DATA));
    let (_, answer) = world.release("/keys/m0/release", json!({"target":token})).await;
    let pkcs8 = guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem).unwrap();
    assert!(KeyPair::from_pkcs8(&pkcs8).is_ok(), "an RSA key comes as PKCS#8");

    let (_, first) = world.call("auditor", Method::GET, "/keys/m2/?api-version=7.4", None).await;
    let (status, second) =
        world.call("importer", Method::POST, "/keys/m2/rotate?api-version=7.4", None).await;
    assert_eq!(status, 200);
    assert_ne!(first["key"]["kid"], second["key"]["kid"]);
    let (_, versions) =
        world.call("auditor", Method::GET, "/keys/m2/versions?api-version=7.4", None).await;
    assert_eq!(versions["value"].as_array().unwrap().len(), 2);
    let old = first["key"]["kid"].as_str().unwrap().strip_prefix(&world.url).unwrap().to_owned();
    let (_, shown) =
        world.call("auditor", Method::GET, &format!("{old}?api-version=7.4"), None).await;
    assert_eq!(shown, first);

    let (mut path, mut seen) = ("/keys?api-version=7.4&maxresults=2".to_owned(), Vec::new());
    loop {
        let (status, page) = world.call("auditor", Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        let items = page["value"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(
            items
                .iter()
                .map(|item| item["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()),
        );
        match page["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix(&world.url).unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["m0", "m1", "m2"]);
    world.stop().await;
}

#[tokio::test]
async fn refusals_have_the_vaults_shape() {
    let world = World::new().await;
    let put =
        async |path: &str, body: Value| world.call("importer", Method::PUT, path, Some(body)).await;
    let good = || json!({"key":{"kty":"oct","k":"AAAA"},"attributes":{"exportable":true},"release_policy":policy(AUTHORITY, HOST_DATA)});
    assert_eq!(put("/keys/k?api-version=7.4", good()).await.0, 200);
    let without = |name: &str| {
        let mut body = good();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let with = |name: &str, value: Value| {
        let mut body = good();
        body[name] = value;
        body
    };
    let cases = [
        ("/keys/k", good(), "api-version"),
        ("/keys/k?api-version=", good(), "api-version"),
        ("/keys/-k?api-version=7.4", good(), "key id segment"),
        ("/keys/k?api-version=7.4", without("key"), "missing field `key`"),
        (
            "/keys/k?api-version=7.4",
            without("release_policy"),
            "Exportable keys must have release policy",
        ),
        ("/keys/k?api-version=7.4", with("key", json!({"kty":"OKP"})), "key type is"),
        ("/keys/k?api-version=7.4", with("key", json!({"kty":"oct"})), "\"k\" is missing"),
        (
            "/keys/k?api-version=7.4",
            with("key", json!({"kty":"oct","k":"AAAA","key_ops":["steal"]})),
            "steal",
        ),
        ("/keys/k?api-version=7.4", with("release_policy", json!({"data":"%"})), "base64url"),
        (
            "/keys/k?api-version=7.4",
            with("release_policy", json!({"data":encode_base64url("{}")})),
            "release policy",
        ),
        ("/keys/k?api-version=7.4", json!([]), "wrong type"),
    ];
    for (path, body, expect) in cases {
        let (status, answer) = put(path, body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!((status.as_u16(), code(&answer)), (400, "BadParameter"), "{answer}");
        assert!(message.contains(expect), "{message} has no {expect}");
    }
    let (status, answer) =
        world.call("auditor", Method::GET, "/keys/none?api-version=7.4", None).await;
    assert_eq!((status.as_u16(), code(&answer)), (404, "KeyNotFound"));
    let (status, answer) =
        world.release("/keys/k/release", json!({"target":"x","enc":"AES"})).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "BadParameter"));
    for bad in ["0", "26", "x"] {
        let path = format!("/keys?api-version=7.4&maxresults={bad}");
        assert_eq!(world.call("auditor", Method::GET, &path, None).await.0, 400);
    }
    assert_eq!(world.call("auditor", Method::GET, "/nothing", None).await.0, 404);
    assert_eq!(world.call("auditor", Method::DELETE, "/keys", None).await.0, 405);
    world.stop().await;
}

/// Who sends a member that is not read believes that it has an effect, as one that keeps a key from something.
#[tokio::test]
async fn attack_members_of_bodies_that_would_be_ignored() {
    let world = World::new().await;
    let rule = || policy(AUTHORITY, HOST_DATA);
    let key = || json!({"kty":"oct","k":"AAAA"});
    let import = || json!({"key":key(),"attributes":{"exportable":true},"release_policy":rule()});
    let create = || json!({"kty":"EC","attributes":{"exportable":true},"release_policy":rule()});
    let call = async |method: Method, path: &str, body: Value| {
        let role = if path.contains("release") {
            "releaser"
        } else if method == Method::PATCH {
            "admin"
        } else {
            "importer"
        };
        world.call(role, method, &format!("/keys/{path}?api-version=7.4"), Some(body)).await
    };
    let merged = |mut body: Value, more: Value| {
        for (name, value) in more.as_object().unwrap() {
            match (&mut body[name], value) {
                (Value::Object(old), Value::Object(new)) => old.extend(new.clone()),
                (old, new) => *old = new.clone(),
            }
        }
        body
    };
    // What clients of the cloud's vaults send, and members that have no effect there either.
    let times = json!({"created":1,"updated":1,"recoveryLevel":"Purgeable","recoverableDays":0,"hsmPlatform":"2"});
    for (method, path, body, more) in [
        (Method::PUT, "i", import(), json!({})),
        (Method::PUT, "i", import(), json!({"Hsm":true,"tags":{},"attributes":times})),
        (
            Method::PUT,
            "i",
            import(),
            json!({"hsm":null,"tags":null,"key":{"kid":"x","key_size":24,"n":null}}),
        ),
        (
            Method::POST,
            "c/create",
            create(),
            json!({"crv":"P-256","tags":{},"public_exponent":null}),
        ),
        (
            Method::POST,
            "c/create",
            create(),
            json!({"kty":"RSA","key_size":2048,"public_exponent":65537}),
        ),
        (Method::PATCH, "i", json!({"key_ops":["encrypt"]}), json!({"tags":{},"attributes":times})),
        (Method::PATCH, "i", json!({}), json!({"attributes":{"exportable":true}})),
    ] {
        let (status, answer) = call(method, path, merged(body, more.clone())).await;
        assert_eq!(status, 200, "{path} with {more}: {answer}");
        if more.get("Hsm").is_some() {
            assert_eq!(answer["key"]["kty"], "oct-HSM", "{answer}");
        }
    }
    let release = || json!({"target":"x"});
    for (method, path, body, more, words) in [
        (Method::PUT, "i", import(), json!({"tags":{"a":"b"}}), "tags are not kept"),
        (Method::PUT, "i", import(), json!({"HSM":true}), "unknown field `HSM`"),
        (
            Method::PUT,
            "i",
            import(),
            json!({"attributes":{"enable":false}}),
            "unknown field `enable`",
        ),
        (
            Method::PUT,
            "i",
            import(),
            json!({"release_policy":{"immutible":true}}),
            "unknown field `immutible`",
        ),
        (
            Method::PUT,
            "i",
            import(),
            json!({"key":{"use":"sig"}}),
            "\"use\" is none that a key of type oct has",
        ),
        (Method::PUT, "i", import(), json!({"key":{"d":"AAAA"}}), "\"d\" is none"),
        (
            Method::PUT,
            "i",
            import(),
            json!({"key":{"key_hsm":"AAAA"}}),
            "wrapped for a cloud's HSM",
        ),
        (
            Method::PUT,
            "i",
            import(),
            json!({"key":{"key_size":256}}),
            "not the size of k, expected 24",
        ),
        (Method::POST, "c/create", create(), json!({"tags":{"a":"b"}}), "tags are not kept"),
        (Method::POST, "c/create", create(), json!({"key_size":256}), "no key_size, but a crv"),
        (
            Method::POST,
            "c/create",
            create(),
            json!({"public_exponent":65537}),
            "no public_exponent",
        ),
        (
            Method::POST,
            "c/create",
            create(),
            json!({"kty":"RSA","public_exponent":3}),
            "public_exponent is 3, expected 65537",
        ),
        (Method::POST, "c/create", create(), json!({"kty":"RSA","crv":"P-256"}), "no crv"),
        (Method::POST, "c/create", create(), json!({"curve":"P-521"}), "unknown field `curve`"),
        (Method::PATCH, "i", json!({}), json!({"tags":{"a":"b"}}), "tags are not kept"),
        (
            Method::PATCH,
            "i",
            json!({}),
            json!({"attributes":{"exportable":false}}),
            "cannot be changed",
        ),
        (Method::PATCH, "i", json!({}), json!({"enabled":false}), "unknown field `enabled`"),
        (
            Method::PATCH,
            "i",
            json!({}),
            json!({"attributes":{"expires":1}}),
            "unknown field `expires`",
        ),
        (Method::POST, "i/release", release(), json!({"env":"x"}), "unknown field `env`"),
    ] {
        let (status, answer) = call(method, path, merged(body, more.clone())).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (status.as_u16(), code(&answer)),
            (400, "BadParameter"),
            "{path} with {more}: {answer}"
        );
        assert!(message.contains(words), "{path} with {more}: {message}");
    }
    world.stop().await;
}

/// No answer, whatever it is, holds what a key is made of.
#[tokio::test]
async fn attack_error_that_quotes_the_key() {
    let world = World::new().await;
    let secret = encode_base64url([7; 32]);
    for body in [
        json!({"key":{"kty":"oct","k":[secret]}}),
        json!({"key":{"kty":"RSA","d":secret,"n":secret,"e":secret,"p":secret,"q":secret,"dp":secret,"dq":secret,"qi":secret}}),
        json!({"key":secret}),
        json!({"key":{"kty":"EC","crv":"P-256","x":secret,"y":secret,"d":secret}}),
    ] {
        let (status, answer) =
            world.call("importer", Method::PUT, "/keys/k?api-version=7.4", Some(body)).await;
        assert_eq!(status, 400);
        assert!(!answer.to_string().contains(&secret), "{answer}");
    }
    world.stop().await;
}
