//! Signatures, held against what the published library makes of them.

use super::*;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::http::auth::tests::{sender, webhook_key};

/// What `tests/webhooks/record.py` has recorded of the Python library.
const VECTORS: &str = include_str!("../../../../tests/webhooks/vectors.json");

const NOW: i64 = 1_795_000_000;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |&(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().expect("a name");
        (
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        )
    };
    pairs.iter().map(pair).collect()
}

/// Whether a request with these headers and this body was signed with this secret.
fn is_signed(secret: &str, headers: &HeaderMap, now_s: i64, body: &str) -> bool {
    let mut webhooks = Webhooks::default();
    webhooks.add(&[webhook_key(secret)], &sender("shop"));
    let signed = Signed::read(headers, now_s);
    signed.is_ok_and(|signed| webhooks.signer(&signed, None, body.as_bytes()).is_some())
}

#[test]
fn signatures_are_what_the_published_library_says() {
    let cases: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        let text = |name: &str| case[name].as_str().expect(name);
        let headers = headers(&[
            ("webhook-id", text("id")),
            ("webhook-timestamp", text("timestamp")),
            ("webhook-signature", text("signature")),
        ]);
        let now = case["now"].as_i64().expect("a time");
        let expected = case["ours"].as_bool().or(case["oracle"].as_bool());
        let signed = is_signed(text("secret"), &headers, now, text("body"));
        assert_eq!(Some(signed), expected, "{}", case["name"]);
    }
}

/// The secret, id, time, body and signature of the first recorded case that is of now.
fn good() -> (String, String, String, String, String) {
    let cases: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    let mut of_now = cases
        .iter()
        .filter(|case| case["name"] == "a body: beyond ASCII");
    let case = of_now.next().expect("a case").clone();
    let text = |name: &str| case[name].as_str().expect(name).to_owned();
    (
        text("secret"),
        text("id"),
        text("timestamp"),
        text("body"),
        text("signature"),
    )
}

#[test]
fn the_older_names_are_the_same_and_are_not_mixed_with_the_newer() {
    let (secret, id, time, body, signature) = good();
    let svix = [
        ("svix-id", &*id),
        ("svix-timestamp", &time),
        ("svix-signature", &signature),
    ];
    let is_signed = |pairs: &[(&str, &str)]| is_signed(&secret, &headers(pairs), NOW, &body);
    assert!(is_signed(&svix));
    for at in 0..3 {
        let mut mixed = svix;
        mixed[at].0 = HEADERS[0][at];
        assert!(!is_signed(&mixed), "{mixed:?}");
        let mut fewer = svix.to_vec();
        fewer.remove(at);
        assert!(!is_signed(&fewer), "{fewer:?}");
        let mut twice = svix.to_vec();
        twice.push(svix[at]);
        assert!(!is_signed(&twice), "{twice:?}");
    }
    // Of both, the newer count.
    let newer = [
        ("webhook-id", &*id),
        ("webhook-timestamp", &time),
        ("webhook-signature", "v1,"),
    ];
    assert!(!is_signed(&[newer, svix].concat()));
}

#[test]
fn every_byte_counts() {
    let (secret, id, time, body, signature) = good();
    let parts = [id, time, body, signature];
    let is_good = |[id, time, body, signature]: &[String; 4]| {
        let names = HEADERS[0];
        let headers = headers(&[(names[0], id), (names[1], time), (names[2], signature)]);
        is_signed(&secret, &headers, NOW, body)
    };
    assert!(is_good(&parts));
    for (part, text) in parts.iter().enumerate() {
        for at in (0..text.len())
            .filter(|at| text.is_char_boundary(*at) && text.as_bytes()[*at].is_ascii())
        {
            let mut other = parts.clone();
            let byte = if text.as_bytes()[at] == b'1' {
                "2"
            } else {
                "1"
            };
            other[part].replace_range(at..=at, byte);
            assert!(!is_good(&other), "{other:?}");
        }
    }
}

#[test]
fn the_id_of_the_message_is_the_one_that_is_signed() {
    let (_, id, time, _, signature) = good();
    let names = HEADERS[0];
    let headers = headers(&[(names[0], &id), (names[1], &time), (names[2], &signature)]);
    let signed = Signed::read(&headers, NOW).expect("a signature");
    assert_eq!(signed.id(), id.as_bytes());
}

#[test]
fn a_query_names_one_source() {
    let named = |query| source_named(query).map(|source| source.map(|source| source.to_string()));
    assert_eq!(named(None), Ok(None));
    for none in ["", "till=7", "Source=a", "xsource=a", "source"] {
        assert_eq!(named(Some(none)), Ok(None), "{none}");
    }
    for one in [
        "source=a-1",
        "till=7&source=a-1",
        "source=a-1&till=7",
        "&&source=a-1&",
    ] {
        assert_eq!(named(Some(one)), Ok(Some("a-1".into())), "{one}");
    }
    for wrong in [
        "source=",
        "source=A",
        "source=a%2d1",
        "source=a&source=a",
        "source=a&source=b",
    ] {
        assert!(named(Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_signature_list_is_bounded() {
    let (secret, id, time, body, signature) = good();
    let names = HEADERS[0];
    for (before, expected) in [(SIGNATURES_MAX - 1, true), (SIGNATURES_MAX, false)] {
        let list = format!("{}{signature}", "v1a,x ".repeat(before));
        let headers = headers(&[(names[0], &id), (names[1], &time), (names[2], &list)]);
        assert_eq!(is_signed(&secret, &headers, NOW, &body), expected);
    }
}
