//! Credentials as they are read.

use super::*;

const TOKEN: &str = "tkd_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn parse(text: &str) -> Result<Credentials, String> {
    Credentials::parse(text).map_err(|error| error.to_string())
}

fn source<'a>(credentials: &'a Credentials, name: &str) -> &'a SourceCredentials {
    &credentials.sources[&Source::parse(name).expect("a name")]
}

#[test]
fn lines_are_grouped_by_their_source() {
    let text = format!(
        "\u{feff}# name kind secret\r\n\r\nshop-7 bearer {TOKEN} # the old till; goes in May\r\n\
         \tshop-7  webhook {SECRET}\trate=5/s:9\n; ;ops operator {}; shop-8 bearer {} rate=off",
        TokenHash::of(b"ops"),
        TokenHash::of(b"another"),
    );
    let credentials = parse(&text).expect("valid");
    let shop = source(&credentials, "shop-7");
    assert_eq!(shop.tokens, [TokenHash::of(TOKEN.as_bytes())]);
    assert_eq!(shop.webhook_keys, [SECRET.parse().expect("a secret")]);
    let limit = RateLimit {
        per_second: 5,
        burst: 9,
    };
    assert_eq!(shop.rate, Some(RateOverride::Limit(limit)));
    assert_eq!(source(&credentials, "shop-8").rate, Some(RateOverride::Off));
    assert_eq!(credentials.operators, [TokenHash::of(b"ops")]);
    assert_eq!(credentials.sources.len(), 2);
}

#[test]
fn a_hash_is_written_as_it_is_read() {
    let hash = TokenHash::of(b"abc");
    // FIPS 180-2, appendix B.1.
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash.to_string(), text);
    assert_eq!(text.parse(), Ok(hash));
    assert_eq!(text.replace("ba78", "BA78").parse(), Ok(hash));
}

/// Wrong credentials, and what is wrong with them.
#[rustfmt::skip]
fn wrong() -> Vec<(String, &'static str)> {
    let padded = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA==";
    let other = SECRET.replace('M', "N");
    let hash = TokenHash::of(TOKEN.as_bytes());
    let (short, long) = ("x".repeat(31), "x".repeat(513));
    let many: String = (0..9)
        .map(|n| format!("\nshop webhook {SECRET}{n}AAA"))
        .collect();
    vec![
        (String::new(), "no credential"),
        (" \n# shop bearer\n;;".into(), "no credential"),
        ("\nshop".into(), "line 2: it has not a name"),
        (format!("shop {TOKEN}"), "line 1: it has not"),
        (format!("\n\nShop bearer {TOKEN}"), "line 3: a name has 1 to 64"),
        (format!("{} bearer {TOKEN}", "s".repeat(65)), "a name has"),
        (format!("{TOKEN} bearer shop"), "a name has"),
        (format!("other bearer {TOKEN}"), "the name other is taken"),
        (format!("shop bear {TOKEN}"), "the kind is none of"),
        (format!("shop {SECRET} webhook"), "the kind is none of"),
        (format!("shop bearer {short}"), "a token has 32 to 512"),
        (format!("shop bearer {long}"), "a token has 32 to 512"),
        (format!("shop bearer {short}é"), "a token has 32 to 512"),
        (format!("shop bearer ={TOKEN}"), "a token has 32 to 512"),
        (format!("shop bearer {}", "=".repeat(40)), "a token has 32 to 512"),
        ("shop bearer sha256:".into(), "64 hexadecimal digits"),
        (format!("shop bearer {hash}0"), "64 hexadecimal digits"),
        (format!("shop bearer sha256:{}", "g".repeat(64)), "64 hexadecimal digits"),
        (format!("shop bearer sha256:{}", "é".repeat(32)), "64 hexadecimal digits"),
        (format!("shop webhook {TOKEN}"), "begins with whsec_"),
        (format!("shop webhook {}", SECRET.replace("whsec", "whpk")), "begins with whsec_"),
        ("shop webhook whsec_".into(), "24 to 64 bytes"),
        ("shop webhook whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaQ=".into(), "24 to 64 bytes"),
        ("shop webhook whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL".into(), "base64"),
        (format!("shop webhook whsec_{}", "A".repeat(88)), "24 to 64 bytes"),
        (format!("shop webhook {SECRET}!"), "base64"),
        (format!("shop bearer {TOKEN} expires=never"), "the only option"),
        (format!("shop bearer {TOKEN} rate=fast"), "a rate is written like"),
        (format!("shop bearer {TOKEN} rate=1/s rate=1/s"), "more than one rate"),
        (format!("ops operator {TOKEN} rate=1/s"), "an operator has no rate"),
        (format!("shop bearer {TOKEN}\nshop bearer {hash}"), "line 2: this secret is there"),
        (format!("a bearer {TOKEN};b operator {TOKEN}"), "line 1: this secret is there"),
        (format!("a webhook {padded}\nb webhook {}", padded.trim_end_matches('=')), "line 2: this secret is there"),
        (format!("a webhook {SECRET} rate=1/s\na webhook {other} rate=off"), "line 2: this source has another rate"),
        (many, "line 10: this source has more than 8"),
    ]
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_without_its_words() {
    for (text, why) in wrong() {
        let error = parse(&text).expect_err(&text);
        assert!(error.contains(why), "{text}: {error}");
        for hidden in [
            "tkd", "0123", "xxx", "MfKQ", "whsec_M", "expires", "fast", "Shop",
        ] {
            assert!(!error.contains(hidden), "{text}: {error}");
        }
    }
}

#[test]
fn nothing_secret_is_in_what_is_shown_for_debugging() {
    let text = format!(
        "a bearer {TOKEN}\na webhook {SECRET}\no operator {}",
        TokenHash::of(b"x")
    );
    let credentials = parse(&text).expect("valid");
    let hash = TokenHash::of(TOKEN.as_bytes()).to_string();
    let hash = hash.trim_start_matches("sha256:");
    for shown in [format!("{credentials:?}"), format!("{credentials:#?}")] {
        assert!(shown.contains("not shown"), "{shown}");
        for hidden in [TOKEN, "MfKQ9r", hash, "49, 242"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}

#[test]
fn a_secret_is_read_with_and_without_padding() {
    let key: WebhookKey = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA=="
        .parse()
        .expect("padded");
    assert_eq!("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA".parse(), Ok(key));
    assert_eq!(key.block()[..26], [(0..=24).collect(), vec![0]].concat());
}
