//! The page in a browser. `make test_page` installs that, and what else they need.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use ticketd_testing::*;

use super::browser::Browser;
use crate::TICKETD;
use crate::senders::{LINES, SHOP_1};

/// How soon a ticket has to be seen that was posted.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Markup that would run, were it taken for such.
const MARKUP: &str = "<img src=x onerror=\"document.title='run'\">";

/// Where make has put axe-core, and screenshots are kept.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

impl Browser {
    /// A browser that shows the page of a process.
    async fn at(process: &mut Process, setting: &str) -> Self {
        let browser = Self::start().await;
        let address = process.address(setting).await;
        browser.open(&format!("http://{address}/")).await;
        browser
    }

    /// Checks that axe finds nothing.
    async fn is_for_everybody(&self) {
        let axe = Path::new(FOLDER).join("axe-core/axe.min.js");
        let axe = fs::read_to_string(axe).expect("axe-core, which make test_page fetches");
        self.run(&axe).await;
        let found = self.promised(
            "axe.run().then(found => found.violations.map(it => \
             [it.id, it.nodes.map(node => node.html + ' ' + node.failureSummary)]))",
        );
        assert_eq!(found.await, json!([]));
    }

    /// Checks that it has asked nobody but the page's own process, and that the console has nothing to
    /// say but, perhaps, that a ticket was asked for before it was stored.
    async fn is_clean(&self) {
        let origin = self.run("return location.origin").await;
        let origin = origin.as_str().unwrap();
        let requested = self.requested().await;
        assert!(!requested.is_empty());
        for url in requested {
            assert!(url.starts_with(origin), "{url}");
        }
        for (source, message) in self.console().await {
            let is_early =
                source == "network" && message.contains("/ticket/") && message.contains("404");
            assert!(is_early, "{source}: {message}");
        }
    }
}

/// A posted ticket is seen soon, and opens with its bad line marked; markup in it stays text; the
/// sentence tells of PostgreSQL's end: posts tickets, and takes PostgreSQL away.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn a_ticket_is_seen_and_so_is_an_outage() {
    let namespace = Namespace::new(TICKETD).await;
    let mut way = Forwarder::shut();
    let database = way.url(&namespace.database_url());
    way.open(&namespace.database_url());
    let mut ticketd = namespace
        .ready("serve", &[("DATABASE_URL", &database)])
        .await;
    let browser = Browser::at(&mut ticketd, "LISTEN").await;
    browser.says("#state", "Ready; no ticket").await;
    browser.says("#list-note", "No ticket").await;

    let mut client = ticketd.client().await;
    let posted = Instant::now();
    namespace.accepted(&mut client, &[], &ticket("4711")).await;
    browser.says("#rows", "4711").await;
    let elapsed = posted.elapsed();
    assert!(elapsed < SEEN_WITHIN, "{elapsed:?}");
    browser.says("#state", "Taking and storing").await;

    let invalid =
        format!("Order: {MARKUP}\nVAT: x\nTotal: 2\n\nproduct,product_id,price\n{MARKUP},b,2\n");
    namespace.accepted(&mut client, &[], &invalid).await;
    browser.says("#rows", "bad_vat, line 2").await;
    browser.says("#rows", MARKUP).await;
    browser.says("#invalid", "bad_vat 1").await;
    browser.click("#rows button").await;
    browser.says("#rows pre", "onerror").await;
    assert_eq!(browser.text("#rows mark").await, "2 VAT: x");
    browser.says("#rows b", "Line 2: ").await;
    assert_eq!(browser.text("#pause").await, "Go on");
    browser.click("#pause").await;

    browser.click("#invalid button").await;
    browser
        .says("#list-note", "1 tickets that are bad_vat")
        .await;
    browser.click("#clear").await;
    browser
        .says("#list-note", "2 tickets, the newest first")
        .await;
    browser.fill("#search", "PRODUCT_ID 4711").await;
    browser.says("#list-note", "1 tickets").await;
    assert_eq!(browser.run("return document.images.length").await, 0);
    assert_eq!(browser.run("return document.title").await, "ticketd");
    browser.is_clean().await;

    way.cut();
    drop(way);
    browser
        .says("#state", "PostgreSQL away; tickets are safe in RabbitMQ")
        .await;
    browser.says("#since", " s)").await;
    browser.is_for_everybody().await;
    namespace.accepted(&mut client, &[], &ticket("4712")).await;
    let live =
        "return document.querySelectorAll('[aria-live], [role=status], [role=alert]').length";
    assert_eq!(
        browser.run(live).await,
        1,
        "only the sentence is read aloud"
    );
}

/// A ticket is checked while it is typed, and followed until it is stored, or refused: tries an example
/// and a ticket of our own, and one more without RabbitMQ.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn a_ticket_is_tried() {
    let namespace = Namespace::new(TICKETD).await;
    let mut way = Forwarder::shut();
    let broker = way.url(&namespace.amqp_url());
    way.open(&namespace.amqp_url());
    let mut ticketd = namespace.ready("serve", &[("AMQP_URL", &broker)]).await;
    let browser = Browser::at(&mut ticketd, "LISTEN").await;
    browser.says("#verdict", "✓ Valid").await;
    browser.click("#examples button:nth-child(2)").await;
    browser.says("#verdict mark", "VAT: 3,10").await;
    browser.says("#verdict b", "Line 2, column 6: ").await;
    browser.fill("#body", EXAMPLE).await;
    browser.says("#verdict", "✓ Valid").await;
    browser.click("#send").await;
    browser.says("#way", "confirmed by RabbitMQ after").await;
    browser.says("#way", "stored after").await;
    assert_eq!(namespace.count("tickets").await, 1);
    browser.is_clean().await;

    way.cut();
    drop(way);
    browser
        .says("#state", "RabbitMQ away; tickets are refused")
        .await;
    browser.click("#send").await;
    browser
        .says("#way", "refused, 503: the message broker")
        .await;
    browser.says("#refused", "broker_away 1").await;
    browser.click("#refused button:not([hidden])").await;
    browser.says("#list-note", "Refused for broker_away").await;
}

/// A page that nobody sees asks for nothing: has that of ADMIN_LISTEN hidden, and counts.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn a_hidden_page_is_quiet() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let browser = Browser::at(&mut ticketd, "ADMIN_LISTEN").await;
    browser.says("#state", "Ready").await;
    let is_hidden = "return document.getElementById('try').hidden";
    assert_eq!(
        browser.run(is_hidden).await,
        true,
        "no ticket is taken here"
    );
    browser.is_clean().await;
    let hide = |is: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {is}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.run(&hide(true)).await;
    // What was under way.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    browser.requested().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(browser.requested().await, Vec::<String>::new());
    browser.run(&hide(false)).await;
    wait_until("it asks again", async || {
        !browser.requested().await.is_empty()
    })
    .await;
}

/// Where there are credentials the page shows nothing without an operator's token, which it keeps for
/// its tab alone: gives a wrong one, a source's and an operator's.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn an_operators_token_is_asked_for() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    namespace
        .accepted(&mut client, &[SHOP_1], &ticket("4711"))
        .await;
    let browser = Browser::at(&mut ticketd, "LISTEN").await;
    browser.says("#state", "token is needed").await;
    assert_eq!(
        browser
            .run("return document.getElementById('data').hidden")
            .await,
        true
    );
    browser.is_clean().await;
    browser.is_for_everybody().await;
    let enter = async |token: &str| {
        browser.fill("#token", token).await;
        browser.click("#login button").await;
    };
    for wrong in ["Xq7ZvJ9wKr2Y-token-of-nobody-at-all-00000001", "né"] {
        enter(wrong).await;
        browser
            .says(
                "#login-why",
                if wrong == "né" {
                    "That is no token"
                } else {
                    "not known here"
                },
            )
            .await;
    }
    enter("Xq7ZvJ9wKr2Y-token-of-an-operator-000001").await;
    browser.says("#rows", "4711").await;
    browser.says("#source-rows", "shop-1").await;
    browser.is_for_everybody().await;
    for url in browser.requested().await {
        assert!(!url.contains("token-of"), "{url}");
    }
    browser.click("#send").await;
    browser.says("#way", "refused, 401").await;
    browser
        .fill("#sender-token", "Xq7ZvJ9wKr2Y-token-of-the-first-shop-0001")
        .await;
    browser.click("#send").await;
    browser.says("#way", "stored after").await;
    let kept = browser
        .run("return [localStorage.length, document.cookie]")
        .await;
    assert_eq!(kept, json!([0, ""]));
    browser.click("#logout").await;
    browser.says("#state", "token is needed").await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
}

/// The keyboard is enough: goes to the list past all before it, pauses it, and opens a ticket.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn the_keyboard_is_enough() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    namespace.accepted(&mut client, &[], &ticket("4711")).await;
    let browser = Browser::at(&mut ticketd, "LISTEN").await;
    browser.says("#rows", "4711").await;
    let focused = async || {
        let focused =
            "const it = document.activeElement; return it.id || it.className || it.tagName";
        browser.run(focused).await
    };
    browser.press("Tab").await;
    assert_eq!(focused().await, "skip");
    browser.press("Enter").await;
    wait_until("the list has the focus", async || {
        focused().await == "tickets"
    })
    .await;
    for (id, after) in [("pause", "Go on"), ("pause", "Pause")] {
        if after == "Go on" {
            browser.press("Tab").await;
        }
        assert_eq!(focused().await, id);
        browser.press("Enter").await;
        browser.says("#pause", after).await;
    }
    for id in ["search", "valid", "source", "BUTTON"] {
        browser.press("Tab").await;
        assert_eq!(focused().await, id);
    }
    // The list is made anew under it.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(focused().await, "BUTTON");
    browser.press("Enter").await;
    browser.says("#rows pre", "4711").await;
    browser.press("Enter").await;
    wait_until("it is closed", async || {
        browser.text("#rows pre").await.is_empty()
    })
    .await;
}

/// axe finds nothing, wide or narrow, in the light or in the dark, nothing is cut off, and what is to
/// be touched is large enough. Leaves screenshots.
#[tokio::test]
#[ignore = "needs a browser: make test_page"]
async fn everybody_can_use_it() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let browser = Browser::at(&mut ticketd, "LISTEN").await;
    for number in 0..12 {
        let sent = match number % 4 {
            3 => "Order: 123\nVAT: 3,10\nTotal: 16.90\n".to_owned(),
            _ => ticket(&number.to_string()),
        };
        namespace.accepted(&mut client, &[], &sent).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    browser.says("#list-note", "12 tickets").await;
    browser.click("#rows button").await;
    browser.says("#rows pre", "VAT: 3,10").await;
    browser.click("#examples button:nth-child(2)").await;
    browser.says("#verdict mark", "VAT").await;
    for (width, scheme) in [
        (1280, "light"),
        (1280, "dark"),
        (390, "light"),
        (390, "dark"),
    ] {
        browser.appear(width, scheme).await;
        browser.is_for_everybody().await;
        let wider = browser
            .run("return document.documentElement.scrollWidth > innerWidth")
            .await;
        assert_eq!(wider, false, "{width}: a page that scrolls sideways");
        let small = browser.run("return [...document.querySelectorAll('button, input, select, textarea, nav a')]\
            .filter(it => it.checkVisibility()).map(it => [it.id || it.textContent, it.getBoundingClientRect()])\
            .filter(([, box]) => box.height < 44 || box.width < 44).map(([name]) => name)").await;
        assert_eq!(small, json!([]), "{width}");
        let roles = browser.roles().await;
        for role in [
            "banner",
            "main",
            "contentinfo",
            "navigation",
            "table",
            "row",
            "columnheader",
            "rowheader",
            "cell",
            "mark",
        ] {
            assert!(
                roles.iter().any(|it| it == role),
                "{width}: no {role} in {roles:?}"
            );
        }
        let name = format!("page-{width}-{scheme}.png");
        fs::write(Path::new(FOLDER).join(name), browser.screenshot().await).unwrap();
    }
}
