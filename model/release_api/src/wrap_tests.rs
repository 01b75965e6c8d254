use super::*;

fn seed(byte: u8) -> Seed {
    Seed::new([byte; 32])
}

fn context() -> WrapContext {
    WrapContext {
        key_id: "demo/message".parse().unwrap(),
        kind: KeyKind::Oct,
        runtime_data: Sha256::of(b"runtime data"),
    }
}

fn wrapped(secret: &[u8]) -> WrappedKey {
    let secret = Secret::new(secret.to_vec()).unwrap();
    let guest = GuestKey::from_seed(&seed(2)).public();
    ServiceKey::from_seed(&seed(1)).wrap(&secret, &guest, &context(), seed(3)).unwrap()
}

#[track_caller]
fn check(guest: u8, wrapped: &WrappedKey, context: &WrapContext, expect: Result<&[u8], WrapError>) {
    let service = ServiceKey::from_seed(&seed(1)).public();
    let opened = GuestKey::from_seed(&seed(guest)).open(wrapped, context, &service);
    assert_eq!(opened.as_ref().map(Secret::as_bytes).map_err(Clone::clone), expect);
}

fn hex32(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// RFC 9180's vector file (CFRG), mode_auth, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, sequence number 0.
#[test]
fn the_suite_is_the_one_of_rfc_9180() {
    let sender = ServiceKey::from_seed(&Seed::new(hex32(
        "87137373fe6b28a72534f38048b9467a614d3566fb3a16a50fcaf11c76051392",
    )));
    let receiver = GuestKey::from_seed(&Seed::new(hex32(
        "f59761a1e479c2a291b91a5af2b35dd2cace1b2042b570f88a16b226f6f30774",
    )));
    let pk_r = hex32("3668d659cec6f338f4f8dc6da6733118d2a633f186a3c1415c895111a8eb7c7d");
    let pk_s = hex32("4a91c3d0893433f5e31a79fc520f885527a1bc60bf2b0c72693dd7f0b2e41a5a");
    assert_eq!((receiver.public().as_bytes(), sender.public().as_bytes()), (&pk_r, &pk_s));

    let ikm_e =
        Seed::new(hex32("734369ab3061f71ee85e090fae308553cac8e7b3fbd45b4ba83d05e0cd05b1c4"));
    let mut text =
        hex::decode("4265617574792069732074727574682c20747275746820626561757479").unwrap();
    let (enc, tag) =
        hpke::single_shot_seal_in_place_detached::<AesGcm256, HkdfSha256, X25519HkdfSha256, _>(
            &OpModeS::Auth((sender.private.clone(), parse_public(&sender.public).unwrap())),
            &parse_public(&receiver.public()).unwrap(),
            &hex::decode("4f6465206f6e2061204772656369616e2055726e").unwrap(),
            &mut text,
            &hex::decode("436f756e742d30").unwrap(),
            &mut OneSeed { seed: Some(ikm_e), misused: false },
        )
        .unwrap();
    assert_eq!(
        hex::encode(enc.to_bytes()),
        "9e59f4b1fa5c876f684765290c34e51145894cc4f244342b9fb1a4bdfd8bb426"
    );
    assert_eq!(
        hex::encode([text, tag.to_bytes().to_vec()].concat()),
        "10b964283ac2cc0bdc4c85ab617291b446bf3832e9359b2c3a0facc50ea75a3c1afd08aeaacd6041d02eb560ec"
    );
}

/// Pins the context encoding and the wire form: a change is a new protocol version.
#[test]
fn wrapped_key_known_answer() {
    let digest =
        Sha256::of(serde_json::to_vec(&wrapped(b"0123456789abcdef0123456789abcdef")).unwrap());
    assert_eq!(
        digest.to_string(),
        "19f7ea7dd8e9bf801a61fe0f629253c46e6ccb81c4f8d1757e643faefb227f2d"
    );
}

#[test]
fn the_guest_that_asked_opens_its_key() {
    check(2, &wrapped(b"secret"), &context(), Ok(b"secret"));
    let longest = vec![7; MAX_SECRET_BYTES];
    check(2, &wrapped(&longest), &context(), Ok(&longest));
}

#[test]
fn attack_wrapped_key_opened_with_another_private_key() {
    check(2, &wrapped(b"secret"), &context(), Ok(b"secret"));
    check(4, &wrapped(b"secret"), &context(), Err(WrapError::DoesNotOpen));
}

#[test]
fn attack_wrapped_key_moved_to_another_request() {
    let wrapped = wrapped(b"secret");
    let other_key = WrapContext { key_id: "demo/messagf".parse().unwrap(), ..context() };
    let other_kind = WrapContext { kind: KeyKind::Opaque, ..context() };
    let other_request = WrapContext { runtime_data: Sha256::of(b"runtime datb"), ..context() };
    for context in [other_key, other_kind, other_request] {
        check(2, &wrapped, &context, Err(WrapError::DoesNotOpen));
    }
}

#[test]
fn attack_wrapped_key_altered() {
    let good = wrapped(b"secret");
    for index in 0..good.ciphertext.len() {
        let mut bad = good.clone();
        bad.ciphertext[index] ^= 1;
        check(2, &bad, &context(), Err(WrapError::DoesNotOpen));
    }
    let mut bad = good.clone();
    bad.encapsulated = PublicKey::new([9; 32]);
    check(2, &bad, &context(), Err(WrapError::DoesNotOpen));
    let short = WrappedKey { ciphertext: vec![0; TAG_BYTES - 1], ..good.clone() };
    check(2, &short, &context(), Err(WrapError::DoesNotOpen));
    let long = WrappedKey { ciphertext: vec![0; MAX_SECRET_BYTES + TAG_BYTES + 1], ..good };
    check(2, &long, &context(), Err(WrapError::SecretLength { found: MAX_SECRET_BYTES + 1 }));
}

/// The host sees the guest's public key and wraps a key of its own choice.
#[test]
fn attack_key_wrapped_by_another_service() {
    let host = ServiceKey::from_seed(&seed(66));
    let guest = GuestKey::from_seed(&seed(2)).public();
    let secret = Secret::new(b"known to the host".to_vec()).unwrap();
    let forged = host.wrap(&secret, &guest, &context(), seed(3)).unwrap();
    let expected = ServiceKey::from_seed(&seed(1)).public();
    check(2, &forged, &context(), Err(WrapError::OtherService { found: host.public(), expected }));
    check(2, &WrappedKey { service: expected, ..forged }, &context(), Err(WrapError::DoesNotOpen));
}

#[test]
fn attack_public_key_of_small_order() {
    let secret = Secret::new(b"secret".to_vec()).unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [[0; 32], one] {
        let answer = ServiceKey::from_seed(&seed(1)).wrap(
            &secret,
            &PublicKey::new(weak),
            &context(),
            seed(3),
        );
        assert_eq!(answer.err(), Some(WrapError::WeakPublicKey));
    }
}

#[test]
fn secrets_have_bounds_and_no_text_form() {
    assert_eq!(Secret::new(vec![]).err(), Some(WrapError::SecretLength { found: 0 }));
    let long = Secret::new(vec![0; MAX_SECRET_BYTES + 1]).err();
    assert_eq!(long, Some(WrapError::SecretLength { found: MAX_SECRET_BYTES + 1 }));
    assert_eq!(format!("{:?}", Secret::new(b"hush".to_vec()).unwrap()), "Secret(4 bytes)");
}
