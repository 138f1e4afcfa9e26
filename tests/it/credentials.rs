//! Where credentials come from: how they are made, read, replaced and kept secret.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::{KEY_3, LINES, SHOP_1, post_to, signed};

const NONE: [(&str, &str); 0] = [];

/// What every secret in these tests begins with, as it is, in base64, and in a hash.
const SECRETS: [&str; 3] = ["Xq7Z", "WHE3Wn", "09e5cc025a2d8a55"];

/// A file of a test's own, gone at its end.
struct Lines(PathBuf);

impl Lines {
    fn new(text: &str) -> Self {
        let name = format!("ticketd-credentials-{}", uuid::Uuid::now_v7());
        let lines = Self(std::env::temp_dir().join(name));
        lines.write(text);
        lines
    }

    /// Replaces it at once, as operating.md says.
    fn write(&self, text: impl AsRef<[u8]>) {
        let next = self.0.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &self.0).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn assert_hidden(shown: &str, of: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{of} shows {secret}: {shown}");
    }
}

/// Wrong credentials, and what is wrong with them.
#[rustfmt::skip]
fn wrong() -> Vec<(String, &'static str)> {
    let token = "Xq7ZvJ9wKr2Y-token-of-the-first-shop-0001";
    vec![
        (String::new(), ""),
        (" # nothing\n\n".into(), "there is no credential in it"),
        ("\nshop bearer".into(), "line 2: it has not a name, a kind and a secret"),
        (format!("shop {token}"), "line 1: it has not"),
        (format!("{token} bearer shop"), "line 1: a name has"),
        (format!("Shop bearer {token}"), "line 1: a name has"),
        (format!("shop token {token}"), "line 1: the kind is none"),
        ("shop bearer Xq7ZvJ9w".into(), "line 1: a token has 32 to 512"),
        ("shop bearer sha256:Xq7Z".into(), "line 1: after sha256: stand 64"),
        ("shop webhook whsec_WHE3WnZKOXc=".into(), "line 1: a webhook secret has 24"),
        ("shop webhook whsec_Xq7Z!".into(), "line 1: after whsec_ stands base64"),
        (format!("shop webhook {token}"), "line 1: a webhook secret begins"),
        (format!("a bearer {token}\nb bearer {token}"), "line 2: this secret is there"),
        (format!("{LINES}\nshop-9 bearer {token}x rate={token}"), "line 5: a rate is"),
        (format!("shop bearer {token} {token}"), "line 1: the only option"),
    ]
}

/// Credentials that are set and wrong stop the start, with the setting, the line and the reason, and
/// without a word of what stands there: starts with wrong ones, in a file and in the environment.
#[tokio::test]
async fn wrong_credentials_stop_the_start() {
    for (text, why) in wrong() {
        let file = Lines::new(&text);
        let flag = format!("--credentials={text}");
        let file_flag = format!("--credentials-file={}", file.path());
        for (args, settings, name, code) in [
            (
                vec!["accept"],
                vec![("CREDENTIALS", text.as_str())],
                "--credentials",
                2,
            ),
            (vec!["accept", &flag], vec![], "--credentials", 2),
            (
                vec!["serve", "--database-url=host=db"],
                vec![("CREDENTIALS_FILE", file.path())],
                "CREDENTIALS_FILE",
                1,
            ),
            (
                vec!["accept", "--listen=127.0.0.1:0", &file_flag],
                vec![],
                "CREDENTIALS_FILE",
                1,
            ),
        ] {
            let ended = Process::run(TICKETD, &args, &settings).await;
            assert_eq!(ended.code(), Some(code), "{text}: {}", ended.log);
            assert!(ended.log.contains(name), "{text}: {}", ended.log);
            assert!(ended.log.contains(why), "{text}: {}", ended.log);
            assert!(!ended.log.contains("panicked"), "{text}: {}", ended.log);
            assert_hidden(&format!("{}{}", ended.text(), ended.log), &text);
        }
    }
}

/// So do settings that cannot be meant: runs with each.
#[tokio::test]
async fn settings_that_cannot_be_meant_stop_the_start() {
    let file = Lines::new(LINES);
    let folder = std::env::temp_dir();
    let cases = [
        (vec![("CREDENTIALS_FILE", "")], "--credentials-file", 2),
        (
            vec![("CREDENTIALS_FILE", "/nowhere/at/all")],
            "CREDENTIALS_FILE",
            1,
        ),
        (
            vec![("CREDENTIALS_FILE", folder.to_str().unwrap())],
            "CREDENTIALS_FILE",
            1,
        ),
        (
            vec![("CREDENTIALS_FILE", file.path()), ("CREDENTIALS", LINES)],
            "--credentials",
            2,
        ),
        (vec![("RATE_LIMIT", "5/s")], "--credentials", 2),
        (
            vec![("CREDENTIALS", LINES), ("RATE_LIMIT", "")],
            "--rate-limit",
            2,
        ),
        (
            vec![("CREDENTIALS", LINES), ("RATE_LIMIT", "5")],
            "--rate-limit",
            2,
        ),
    ];
    for (settings, name, code) in cases {
        let ended = Process::run(TICKETD, &["accept"], &settings).await;
        assert_eq!(ended.code(), Some(code), "{settings:?}: {}", ended.log);
        assert!(ended.log.contains(name), "{settings:?}: {}", ended.log);
        assert_hidden(&ended.log, name);
    }
    file.write(b"shop bearer \xff\xff");
    let ended = Process::run(TICKETD, &["accept"], &[("CREDENTIALS_FILE", file.path())]).await;
    assert!(
        ended.log.contains("CREDENTIALS_FILE: it is not UTF-8"),
        "{}",
        ended.log
    );
}

/// What `credential new` writes lets its holder in: makes one of each kind and sends with it.
#[tokio::test]
async fn a_new_credential_lets_its_holder_in() {
    let namespace = Namespace::new(TICKETD).await;
    let mut lines = Vec::new();
    let mut secrets = Vec::new();
    for args in [
        &["credential", "new", "shop-1"][..],
        &["credential", "new", "shop-1", "--kind", "bearer"],
        &["credential", "new", "shop-1", "--kind=webhook"],
        &["credential", "new", "ops", "--kind", "operator"],
    ] {
        let ended = Process::run(TICKETD, args, &NONE).await;
        assert_eq!((ended.code(), ended.log.as_str()), (Some(0), ""));
        let (secret, line) = ended.text().split_once('\n').unwrap();
        assert!(secret.len() >= 47, "{secret}");
        assert_eq!(line.contains(secret), line.contains(" webhook "));
        secrets.push(secret.to_owned());
        lines.push(line.trim_end().to_owned());
    }
    assert_ne!(secrets[0], secrets[1]);
    let file = Lines::new(&lines.join("\n"));
    let mut ticketd = namespace
        .ready("accept", &[("CREDENTIALS_FILE", file.path())])
        .await;
    for (secret, status) in secrets.iter().zip([202, 202, 401, 401]) {
        let header = format!("authorization: Bearer {secret}");
        let answer = ticketd.client().await.ask(post(&[&header], EXAMPLE)).await;
        assert_eq!(answer.status, status);
    }
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD
        .decode(secrets[2].trim_start_matches("whsec_"))
        .unwrap();
    let headers = signed(&key, "m1", now_us() / 1_000_000, EXAMPLE);
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    let mut client = ticketd.client().await;
    namespace.accepted(&mut client, &headers, EXAMPLE).await;

    for args in [
        &["credential", "new"][..],
        &["credential", "new", "Shop"],
        &["credential", "new", "other"],
        &["credential", "new", "shop", "--kind", "admin"],
        &["credential"],
    ] {
        assert_eq!(
            Process::run(TICKETD, args, &NONE).await.code(),
            Some(2),
            "{args:?}"
        );
    }
}

/// SIGHUP reads the file again without closing a connection; one that is wrong or gone changes
/// nothing and is told: replaces it by several, and sends on one connection throughout.
#[tokio::test]
async fn a_wrong_file_keeps_the_old_credentials() {
    let namespace = Namespace::new(TICKETD).await;
    let file = Lines::new(LINES);
    let mut ticketd = namespace
        .ready("accept", &[("CREDENTIALS_FILE", file.path())])
        .await;
    let mut client = ticketd.client().await;
    namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await;
    let hangups = |log: &str| log.matches("credentials stay as they were").count();
    for (n, (text, why)) in [
        (Some("shop-1 bearer Xq7Z"), "line 1: a token has 32"),
        (Some(""), "there is no credential in it"),
        (
            Some(&format!("{LINES}\nshop-1 bear Xq7ZvJ9wKr2Y")),
            "line 5: the kind is none",
        ),
        (None, "No such file"),
    ]
    .into_iter()
    .enumerate()
    {
        match text {
            Some(text) => file.write(text),
            None => std::fs::remove_file(&file.0).unwrap(),
        }
        ticketd.signal("HUP");
        wait_until("the wrong file is told", async || {
            hangups(&ticketd.log()) > n
        })
        .await;
        let log = ticketd.log();
        assert!(log.lines().last().unwrap().contains(why), "{log}");
        assert!(log.contains(file.path()), "{log}");
        assert_hidden(&log, why);
        namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await;
    }
    let other = "t".repeat(40);
    file.write(format!("shop-9 bearer {other}"));
    ticketd.signal("HUP");
    ticketd.logged("CREDENTIALS_FILE was read again").await;
    let other = format!("authorization: Bearer {other}");
    namespace.accepted(&mut client, &[&other], EXAMPLE).await;
    client.ask(post(&[SHOP_1], EXAMPLE)).await.problem(401);
}

/// A token and a secret are replaced under load without one refusal, as operating.md says: the new
/// line is added, senders change, the old line is taken out. Sends on several connections meanwhile.
#[tokio::test]
async fn a_rotation_refuses_nothing() {
    let namespace = Namespace::new(TICKETD).await;
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    let (old_key, new_key) = (KEY_3, b"the-new-key-of-24-bytes-".as_slice());
    let secret = |key: &[u8]| {
        use base64::Engine;
        format!(
            "whsec_{}",
            base64::engine::general_purpose::STANDARD.encode(key)
        )
    };
    let lines = |token: &str, key: &[u8]| format!("a bearer {token}\nb webhook {}\n", secret(key));
    let file = Lines::new(&lines(&old, old_key));
    let mut ticketd = namespace
        .ready("serve", &[("CREDENTIALS_FILE", file.path())])
        .await;
    let in_use = Arc::new(Mutex::new((old.clone(), old_key)));
    let (sent, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = ticketd.client().await;
        let (in_use, sent, over) = (in_use.clone(), sent.clone(), over.clone());
        senders.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let (token, key) = in_use.lock().unwrap().clone();
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let headers = match number % 2 {
                    0 => vec![format!("authorization: Bearer {token}")],
                    _ => signed(key, &format!("m{number}"), now_us() / 1_000_000, EXAMPLE),
                };
                let headers: Vec<_> = headers.iter().map(String::as_str).collect();
                client.ask(post(&headers, EXAMPLE)).await.id();
            }
        });
    }
    let more = async |count: u64| {
        let before = sent.load(Ordering::Relaxed);
        wait_until("more was sent", async || {
            sent.load(Ordering::Relaxed) >= before + count
        })
        .await;
    };
    let reread = async |count: usize| {
        ticketd.signal("HUP");
        wait_until("the file is read", async || {
            ticketd.log().matches("was read again").count() == count
        })
        .await;
    };
    more(50).await;
    file.write(lines(&old, old_key) + &lines(&new, new_key));
    reread(1).await;
    more(50).await;
    *in_use.lock().unwrap() = (new.clone(), new_key);
    more(50).await;
    file.write(lines(&new, new_key));
    reread(2).await;
    more(50).await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let mut client = ticketd.client().await;
    let header = format!("authorization: Bearer {old}");
    client.ask(post(&[&header], EXAMPLE)).await.problem(401);
    namespace.stored(sent.load(Ordering::Relaxed) as i64).await;
}

/// One webhook secret too many for requests that do not name their source is told by the log, as
/// their senders are answered 401 from then on: adds it, and takes it out again.
#[tokio::test]
async fn too_many_secrets_for_unnamed_sources_are_warned_of() {
    use base64::Engine;
    let namespace = Namespace::new(TICKETD).await;
    let key = |n: u8| [n; 24];
    let line = |n: u8| {
        let secret = base64::engine::general_purpose::STANDARD.encode(key(n));
        format!("shop-{n} webhook whsec_{secret}\n")
    };
    let file = Lines::new(&(0..8).map(line).collect::<String>());
    let mut ticketd = namespace
        .ready("serve", &[("CREDENTIALS_FILE", file.path())])
        .await;
    let address = ticketd.address("LISTEN").await;
    let ask = async |id: &str, query: &str| {
        let headers = signed(&key(0), id, now_us() / 1_000_000, EXAMPLE);
        let mut client = Client::connect(address).await.unwrap();
        client.ask(post_to(query, &headers, EXAMPLE)).await
    };
    const WARNING: &str =
        "more webhook secrets than a request without ?source=NAME is compared with";
    ask("m1", "").await.id();
    assert!(!ticketd.log().contains(WARNING));
    file.write((0..9).map(line).collect::<String>());
    ticketd.signal("HUP");
    ticketd.logged(WARNING).await;
    ask("m2", "").await.problem(401);
    ask("m3", "?source=shop-0").await.id();
    let again = namespace
        .ready("accept", &[("CREDENTIALS_FILE", file.path())])
        .await;
    again.logged(WARNING).await;
}

/// No secret, no token and no hash of one is logged at any level or shown by any help: sends right
/// and wrong ones with everything logged, and has the file read again.
#[tokio::test]
async fn secrets_are_not_shown() {
    let namespace = Namespace::new(TICKETD).await;
    let file = Lines::new(LINES);
    let settings = [("CREDENTIALS_FILE", file.path()), ("RUST_LOG", "trace")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let signed = signed(KEY_3, "m1", now_us() / 1_000_000, EXAMPLE);
    let signed: Vec<_> = signed.iter().map(String::as_str).collect();
    let mut client = ticketd.client().await;
    namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await;
    namespace.accepted(&mut client, &signed, EXAMPLE).await;
    for wrong in [
        "Bearer Xq7ZvJ9wKr2Y",
        "Basic Xq7ZvJ9wKr2Y",
        "Bearer Xq7ZvJ9wKr2Y-token-of-nobody-at-all-0000",
    ] {
        let header = format!("authorization: {wrong}");
        ticketd
            .client()
            .await
            .ask(post(&[&header], EXAMPLE))
            .await
            .problem(401);
    }
    ticketd.signal("HUP");
    ticketd.logged("was read again").await;
    let log = ticketd.drained().await.log;
    assert!(log.contains("without a valid credential"), "{log}");
    assert_hidden(&log, "the log");
    for signature in &signed[2..] {
        assert!(
            !log.contains(signature.trim_start_matches("webhook-signature: v1,")),
            "{log}"
        );
    }
    for role in ["serve", "accept", "consume", "credential", "healthcheck"] {
        let help = Process::run(TICKETD, &[role, "--help"], &[("CREDENTIALS", LINES)]).await;
        assert_hidden(help.text(), role);
    }
    let token = "tkd_Xq7ZvJ9wKr2YXq7ZvJ9wKr2YXq7ZvJ9wKr2Y";
    for args in [
        &["accept", token][..],
        &[token],
        &["accept", "whsec_Xq7ZvJ9wKr2Y"],
        &["accept", "--credentials", "shop", "bearer", token],
        &["accept", "--credentials-file", "/x", "sha256:Xq7Z"],
        &["credential", "new", token],
        &["credential", "new", "shop", "--kind", token],
    ] {
        let ended = Process::run(TICKETD, args, &NONE).await;
        assert_eq!(ended.code(), Some(2), "{args:?}");
        assert_hidden(
            &format!("{}{}", ended.text(), ended.log),
            &format!("{args:?}"),
        );
    }
}
