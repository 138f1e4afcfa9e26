//! Who is taken for whom, and how that is replaced.

use super::*;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderName, HeaderValue};
use sha2::Sha256;

use crate::config::WebhookKey;

const NOW_US: i64 = 1_795_000_000_000_000;

/// A sender without a limit.
pub(super) fn sender(name: &str) -> Arc<Sender> {
    let source = Source::parse(name).expect("a name");
    Arc::new(Sender::new(source, None, SourceCounters::new().of(name)))
}

pub(super) fn webhook_key(secret: &str) -> WebhookKey {
    secret.parse().expect("a secret")
}

fn token(name: &str) -> String {
    format!("{name}-{}", "t".repeat(32))
}

/// A secret of these 24 bytes.
fn secret(byte: u8) -> String {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.encode([byte; 24]);
    format!("whsec_{key}")
}

fn senders(lines: &str, rate: Option<RateLimit>) -> Senders {
    Senders::new(&Credentials::parse(lines).expect("valid"), rate)
}

fn replace(senders: &Senders, lines: &str) {
    senders.replace(&Credentials::parse(lines).expect("valid"));
}

fn bearer(name: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {}", token(name))).expect("a value");
    [(AUTHORIZATION, value)].into_iter().collect()
}

fn signed(byte: u8, body: &str) -> HeaderMap {
    use base64::Engine;
    let key = webhook_key(&secret(byte));
    let mac = Hmac::<Sha256>::new(key.block().into()).chain_update(format!("m1.1795000000.{body}"));
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let pairs = [
        ("id", "m1"),
        ("timestamp", "1795000000"),
        ("signature", &format!("v1,{signature}")),
    ];
    let header = |(name, value)| {
        let name: HeaderName = format!("webhook-{name}").parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    };
    pairs.into_iter().map(header).collect()
}

/// Whom this request is taken for.
fn who(senders: &Senders, headers: &HeaderMap, query: Option<&str>, body: &str) -> Option<String> {
    let sender = match senders
        .claim(&ClientIdentity::Unasked, headers, query, NOW_US)
        .ok()?
    {
        Claim::Sender(sender) => sender,
        Claim::Signed(claim) => claim.verify(body.as_bytes()).ok()?.clone(),
    };
    Some(sender.source.to_string())
}

#[test]
fn a_token_is_its_sources_and_an_operators_sends_nothing() {
    let lines = format!(
        "a bearer {}\na bearer {}\nb bearer {}\nops operator {}",
        token("a1"),
        token("a2"),
        token("b"),
        token("ops")
    );
    let senders = senders(&lines, None);
    let who = |name: &str| who(&senders, &bearer(name), None, "");
    assert_eq!(who("a1").as_deref(), Some("a"));
    assert_eq!(who("a2").as_deref(), Some("a"));
    assert_eq!(who("b").as_deref(), Some("b"));
    assert_eq!(who("ops"), None);
    assert_eq!(who("c"), None);
    assert!(
        senders
            .claim(&ClientIdentity::Unasked, &HeaderMap::new(), None, NOW_US)
            .is_err()
    );
    let is_operator = |headers: &HeaderMap| senders.operator(headers).is_ok();
    assert!(is_operator(&bearer("ops")));
    for name in ["a1", "b", "c"] {
        assert!(!is_operator(&bearer(name)), "{name}");
    }
    assert!(!is_operator(&HeaderMap::new()));
}

#[test]
fn a_signature_is_whose_secret_gives_it_and_who_is_named() {
    let lines = format!(
        "a webhook {}\na webhook {}\nb webhook {}\nc bearer {}",
        secret(1),
        secret(2),
        secret(3),
        token("c")
    );
    let senders = senders(&lines, None);
    let who = |byte, query: Option<&str>| who(&senders, &signed(byte, "body"), query, "body");
    for (byte, name) in [(1, "a"), (2, "a"), (3, "b")] {
        assert_eq!(who(byte, None).as_deref(), Some(name));
        assert_eq!(
            who(byte, Some(&format!("source={name}"))).as_deref(),
            Some(name)
        );
    }
    assert_eq!(who(4, None), None);
    for (byte, query) in [
        (1, "source=b"),
        (3, "source=a"),
        (1, "source=c"),
        (1, "source=d"),
        (1, "source="),
    ] {
        assert_eq!(who(byte, Some(query)), None, "{query}");
    }
    let claim = senders.claim(&ClientIdentity::Unasked, &signed(1, "body"), None, NOW_US);
    let Ok(Claim::Signed(claim)) = claim else {
        panic!("signed")
    };
    assert!(claim.verify(b"body").is_ok() && claim.verify(b"bodY").is_err());
}

#[test]
fn among_many_secrets_the_source_is_to_be_named() {
    let line = |n: u8| format!("s{n} webhook {}\n", secret(n));
    for (count, expected) in [(8, Some("s0")), (9, None)] {
        let senders = senders(&(0..count).map(line).collect::<String>(), None);
        let request = signed(0, "x");
        assert_eq!(
            who(&senders, &request, None, "x").as_deref(),
            expected,
            "{count}"
        );
        assert_eq!(
            who(&senders, &request, Some("source=s0"), "x").as_deref(),
            Some("s0")
        );
    }
}

/// A wrong token is not made good by a signature, so that there is one answer to each request.
#[test]
fn a_token_counts_before_a_signature() {
    let lines = format!("a bearer {}\nb webhook {}", token("a"), secret(1));
    let senders = senders(&lines, None);
    let both = |name: &str| {
        let mut headers = signed(1, "x");
        headers.extend(bearer(name));
        headers
    };
    assert_eq!(who(&senders, &both("a"), None, "x").as_deref(), Some("a"));
    assert_eq!(who(&senders, &both("z"), None, "x"), None);
    assert_eq!(
        who(&senders, &signed(1, "x"), None, "x").as_deref(),
        Some("b")
    );
}

#[test]
fn what_replaces_credentials_counts_from_the_next_request() {
    let old = format!("a bearer {}\na webhook {}", token("old"), secret(1));
    let new = format!("a bearer {}\na webhook {}", token("new"), secret(2));
    let senders = senders(&old, None);
    let begun = senders
        .claim(&ClientIdentity::Unasked, &signed(1, "x"), None, NOW_US)
        .expect("a claim");
    replace(&senders, &format!("{old}\n{new}"));
    for (name, byte) in [("old", 1), ("new", 2)] {
        assert!(who(&senders, &bearer(name), None, "").is_some());
        assert!(who(&senders, &signed(byte, "x"), None, "x").is_some());
    }
    replace(&senders, &new);
    assert!(who(&senders, &bearer("old"), None, "").is_none());
    assert!(who(&senders, &signed(1, "x"), None, "x").is_none());
    assert!(who(&senders, &bearer("new"), None, "").is_some());
    let Claim::Signed(begun) = begun else {
        panic!("signed")
    };
    assert!(begun.verify(b"x").is_ok(), "it had begun before");
}

#[test]
fn a_limit_is_of_a_source_and_outlives_a_replacement() {
    let rate = RateLimit {
        per_second: 1,
        burst: 3,
    };
    let lines = format!(
        "a bearer {}\na bearer {}\nb bearer {}\nc bearer {} rate=1/s:5\nd bearer {} rate=off",
        token("a1"),
        token("a2"),
        token("b"),
        token("c"),
        token("d")
    );
    let senders = senders(&lines, Some(rate));
    let admitted = |name: &str, times: usize| {
        let Ok(TokenHolder::Sender(sender)) = senders.bearer(&bearer(name)) else {
            panic!("a sender")
        };
        (0..times).filter(|_| sender.admit().is_ok()).count()
    };
    assert_eq!(admitted("a1", 2), 2);
    assert_eq!(admitted("a2", 10), 1);
    assert_eq!(admitted("b", 10), 3);
    assert_eq!(admitted("c", 10), 5);
    assert_eq!(admitted("d", 1000), 1000);
    replace(&senders, &lines);
    assert_eq!(admitted("a1", 10), 0);
    replace(&senders, &lines.replace("rate=1/s:5", "rate=1/s:7"));
    assert_eq!(admitted("b", 10), 0);
    assert_eq!(admitted("c", 10), 7);
}
