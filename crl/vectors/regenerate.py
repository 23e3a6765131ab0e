#!/usr/bin/env python3
"""Computes body.hex and statement.json without any of the Rust code, from the formats as documented.

The list: number 2 of `example-site`, which revokes atlas/web@1.4.0 because of a compromised key. Run it in this folder.
"""

import calendar
import hashlib
import json


def sha256(data):
    return hashlib.sha256(data).hexdigest()


issued = calendar.timegm((2026, 11, 23, 1, 2, 3))
selector = hashlib.sha256(b"countersign crl selector v1\nversion:atlas/web@1.4.0\n").digest()
recipe_version, key_compromise = 2, 1
body = selector + bytes([recipe_version, key_compromise]) + issued.to_bytes(4, "big")
assert len(body) == 38

statement = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "crl.body", "digest": {"sha256": sha256(body)}}],
    "predicateType": "urn:countersign:crl:v1",
    "predicate": {
        "issuer": "example-site",
        "scope": "site",
        "epoch": 1,
        "number": 2,
        "thisUpdate": "2026-11-23T01:02:03Z",
        "nextUpdate": "2026-11-30T01:02:03Z",
        "previous": {"sha256": sha256(b"the first list's statement")},
        "entries": 1,
        "bodyLength": 38,
        "body": {"sha256": sha256(body)},
    },
}

with open("body.hex", "w") as file:
    file.write(body.hex() + "\n")
with open("statement.json", "w") as file:
    file.write(json.dumps(statement, separators=(",", ":"), ensure_ascii=False) + "\n")
