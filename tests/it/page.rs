//! The page at /: where it is, what its head allows, and how it looks in a browser.

mod browser;
mod seen;

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::LINES;

async fn page(address: SocketAddr, host: &str) -> Answer {
    let mut client = Client::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    client.ask(request).await
}

/// The page and its place among the settings: its attributes, or a 404.
async fn placed(process: &mut Process, setting: &str) -> Option<[bool; 2]> {
    let answer = page(process.address(setting).await, "127.0.0.1").await;
    if answer.status == 404 {
        return None;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let has = |attribute: &str| answer.text().contains(&format!("{attribute}=\"true\""));
    Some([has("data-takes"), has("data-token")])
}

/// The page is one small file whose head allows its own style and script and nothing else: compares
/// the hashes in the head with what came.
#[tokio::test]
async fn the_head_allows_what_is_in_the_page_and_no_more() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("PAGE_HOSTS", "tickets.example")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let address = ticketd.address("LISTEN").await;
    let answer = page(address, "127.0.0.1").await;
    let hash = |element: &str| {
        let (_, after) = answer.text().split_once(&format!("<{element}>")).unwrap();
        let (content, _) = after.split_once(&format!("</{element}>")).unwrap();
        format!(
            "{element}-src 'sha256-{}'",
            STANDARD.encode(Sha256::digest(content))
        )
    };
    let policy = format!(
        "default-src 'none'; connect-src 'self'; {}; {}; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style")
    );
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", &policy),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.body.len() < 40 * 1024, "{}", answer.body.len());
    for host in ["localhost:8080", "tickets.example", "[::1]"] {
        assert_eq!(page(address, host).await.status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        let detail = page(address, host).await.problem(403);
        assert_eq!(
            detail,
            "ask by an address, localhost or a name in PAGE_HOSTS"
        );
    }
}

/// The page is where the tickets and the metrics are that it shows, and nowhere with PAGE=off: starts
/// roles with several listeners, and asks each.
#[tokio::test]
async fn the_page_is_where_its_data_are() {
    let namespace = Namespace::new(TICKETD).await;
    let admin = ("ADMIN_LISTEN", "127.0.0.1:0");
    let exposed = ("LISTEN", "0.0.0.0:0");
    let known = ("CREDENTIALS", LINES);
    let off = ("PAGE", "off");
    let database = namespace.database_url();
    let database = ("DATABASE_URL", database.as_str());
    for (role, settings, on_listen, on_admin) in [
        ("serve", &[][..], Some([true, false]), None),
        ("serve", &[admin], None, Some([false, false])),
        ("serve", &[exposed], None, None),
        ("serve", &[exposed, admin], None, Some([false, false])),
        ("serve", &[exposed, known], Some([true, true]), None),
        ("serve", &[known, admin], None, Some([false, false])),
        ("serve", &[known, off], None, None),
        ("serve", &[admin, off], None, None),
        ("accept", &[admin], None, None),
        ("accept", &[database], Some([true, false]), None),
    ] {
        let mut process = namespace.ready(role, settings).await;
        let names: Vec<_> = settings.iter().map(|(name, _)| *name).collect();
        assert_eq!(placed(&mut process, "LISTEN").await, on_listen, "{names:?}");
        if names.contains(&"ADMIN_LISTEN") {
            let placed = placed(&mut process, "ADMIN_LISTEN").await;
            assert_eq!(placed, on_admin, "{names:?}");
        }
    }
    let mut consume = namespace.ready("consume", &[]).await;
    assert_eq!(placed(&mut consume, "ADMIN_LISTEN").await, None);
}
