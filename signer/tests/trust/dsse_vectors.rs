//! The example of the DSSE specification (protocol.md §Test Vectors).

use signer::dsse::pae;

#[test]
fn the_specifications_example() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    assert_eq!(pae("é", "é".as_bytes()), "DSSEv1 2 é 2 é".as_bytes(), "lengths are bytes");
}
