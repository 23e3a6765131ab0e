//! Requests as they are written, and as they are shown.

#![allow(clippy::unwrap_used, reason = "a test may")]

use guest::control::{HostKey, Identity, Names, Request};

fn identity() -> Identity {
    Identity {
        seed: "SEED".into(),
        unix_time_ns: u64::MAX,
        names: Some(Names {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            hostname: "vm-1".into(),
            mac: Some("52:54:00:12:34:56".into()),
            host_key: HostKey { private: "PRIVATE\n".into(), public: "PUBLIC\n".into() },
        }),
    }
}

#[test]
fn an_identity_is_written_in_one_form() {
    let wake = Request::Wake(identity());
    let text = concat!(
        r#"{"wake":{"seed":"SEED","unixTimeNs":18446744073709551615,"#,
        r#""names":{"machineId":"0123456789abcdef0123456789abcdef","hostname":"vm-1","#,
        r#""mac":"52:54:00:12:34:56","hostKey":{"private":"PRIVATE\n","public":"PUBLIC\n"}}}}"#,
    );
    assert_eq!(serde_json::to_string(&wake).unwrap(), text);
    assert_eq!(serde_json::from_str::<Request>(text).unwrap(), wake);
    let nameless = Request::Wake(Identity { names: None, ..identity() });
    let text = r#"{"wake":{"seed":"SEED","unixTimeNs":18446744073709551615}}"#;
    assert_eq!(serde_json::to_string(&nameless).unwrap(), text);
    assert_eq!(serde_json::from_str::<Request>(text).unwrap(), nameless);
    assert_eq!(serde_json::to_string(&Request::Rest).unwrap(), r#""rest""#);
    for more in [r#"{"wake":{"seed":"","unixTimeNs":0,"x":1}}"#, r#"{"wake":{"seed":""}}"#, r#""wake""#] {
        serde_json::from_str::<Request>(more).unwrap_err();
    }
}

#[test]
fn an_identity_is_shown_without_its_secrets() {
    let shown = format!("{:?}", Request::Wake(identity()));
    assert!(shown.contains("vm-1") && shown.contains("PUBLIC"), "{shown}");
    assert!(!shown.contains("SEED") && !shown.contains("PRIVATE"), "{shown}");
}
