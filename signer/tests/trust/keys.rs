//! Keys at rest, and keys that must not be keys.

use signer::{KeyError, Passphrase, PublicKey, SecretKey};

#[test]
fn a_key_survives_its_file() {
    let key = SecretKey::generate().unwrap();
    let passphrase = Passphrase::from_file_content(b"correct horse\n".to_vec()).unwrap();
    let same = Passphrase::new("correct horse".to_owned()).unwrap();
    let pem = key.to_encrypted_pem(&passphrase).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
    assert_eq!(SecretKey::from_pem(&pem, Some(&same)).unwrap().public(), key.public());
    assert_eq!(SecretKey::from_pem(&key.to_plain_pem().unwrap(), None).unwrap().public(), key.public());
    assert_ne!(pem, key.to_encrypted_pem(&passphrase).unwrap(), "salt and IV are new each time");
}

#[test]
fn nothing_secret_is_printed() {
    let key = SecretKey::generate().unwrap();
    let plain = key.to_plain_pem().unwrap();
    let (_, der) = der::pem::decode_vec(plain.as_bytes()).unwrap();
    let seed = hex::encode(&der[der.len() - 32..]);
    let passphrase = Passphrase::new("correct horse".to_owned()).unwrap();
    let printed = format!("{key:?} {passphrase:?}");
    assert!(printed.contains(&key.public().spki_sha256().to_hex()));
    assert!(!printed.contains(&seed) && !printed.contains("horse"), "{printed}");
    let wrong = Passphrase::new("battery staple".to_owned()).unwrap();
    let refusal = SecretKey::from_pem(&key.to_encrypted_pem(&passphrase).unwrap(), Some(&wrong)).unwrap_err();
    let printed = format!("{refusal} {refusal:?}");
    assert!(
        !printed.contains(&seed) && !printed.contains("horse") && !printed.contains("staple"),
        "{printed}"
    );
}

#[test]
fn a_passphrase_protects_something() {
    for bad in [b"".to_vec(), b"\n".to_vec(), b"\r\n".to_vec(), vec![b'x'; 1025]] {
        assert!(matches!(Passphrase::from_file_content(bad), Err(KeyError::BadPassphrase)));
    }
}

#[test]
fn keys_that_cost_minutes_or_are_no_keys() {
    let passphrase = Passphrase::new("x".to_owned()).unwrap();
    let scheme =
        pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(100_000_000, &[1; 16], [2; 16])
            .unwrap();
    let key = SecretKey::generate().unwrap();
    let plain = key.to_plain_pem().unwrap();
    let (_, der) = der::pem::decode_vec(plain.as_bytes()).unwrap();
    let expensive = pkcs8::EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: scheme.into(),
        encrypted_data: der::asn1::OctetString::new(der).unwrap(),
    };
    let document = pkcs8::SecretDocument::try_from(&expensive).unwrap();
    let pem = document.to_pem("ENCRYPTED PRIVATE KEY", der::pem::LineEnding::LF).unwrap();
    assert!(matches!(
        SecretKey::from_pem(&pem, Some(&passphrase)),
        Err(KeyError::UnsupportedEncryption { .. })
    ));
    assert!(matches!(SecretKey::from_pem(&"x".repeat(16 * 1024 + 1), None), Err(KeyError::TooLarge { .. })));
    assert!(matches!(SecretKey::from_pem("hello", None), Err(KeyError::NotPem(_))));
    assert!(matches!(SecretKey::from_pem(&key.public().to_pem().unwrap(), None), Err(KeyError::NotPem(_))));
    assert!(matches!(PublicKey::from_pem(&plain), Err(KeyError::NotPem(_))));
}

/// RFC 8032 §5.1.3 and the eight points of small order: keys under which one signature fits many messages.
#[test]
fn small_order_and_non_canonical_points_are_no_keys() {
    const PREFIX: &str = "302a300506032b6570032100";
    for (what, point) in [
        ("identity", "0100000000000000000000000000000000000000000000000000000000000000"),
        ("order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("order 4", "0000000000000000000000000000000000000000000000000000000000000000"),
        ("order 4, negative", "0000000000000000000000000000000000000000000000000000000000000080"),
        ("order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        ("order 8, the other", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        ("identity, not reduced", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("y = 3, not reduced", "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("not on the curve", "0200000000000000000000000000000000000000000000000000000000000000"),
    ] {
        let der = hex::decode(format!("{PREFIX}{point}")).unwrap();
        assert!(matches!(PublicKey::from_spki_der(&der), Err(KeyError::WeakPublicKey)), "{what}");
    }
    let good = SecretKey::generate().unwrap().public();
    assert_eq!(PublicKey::from_spki_der(&good.spki_der()).unwrap(), good);
    for cut in 0..44 {
        assert!(PublicKey::from_spki_der(&good.spki_der()[..cut]).is_err());
    }
}

/// RFC 8032 §7.1, test 2.
#[test]
fn the_signature_is_plain_ed25519() {
    let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let der = hex::decode(format!("302e020100300506032b657004220420{seed}")).unwrap();
    let pem = der::pem::encode_string("PRIVATE KEY", der::pem::LineEnding::LF, &der).unwrap();
    let key = SecretKey::from_pem(&pem, None).unwrap();
    let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                    085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(hex::encode(key.sign(&[0x72])), expected);
    assert!(key.public().verify_strict(&[0x72], &hex::decode(expected).unwrap()));
    assert_eq!(*key.to_plain_pem().unwrap(), pem, "PKCS#8 version 1, byte for byte");
}
