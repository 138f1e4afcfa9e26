//! What is the operator's: where it is shown, and to whom.

use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::{
    KEY_3, LINES, OPERATOR, SHOP_1, SHOP_2, assert_unauthorized, get_with, signed,
};

/// Metrics are on the admin listener alone where there is one, and health is on both: asks both, with
/// credentials and without.
#[tokio::test]
async fn the_admin_listener_takes_metrics_away_from_the_other() {
    let namespace = Namespace::new(TICKETD).await;
    for credentials in [None, Some(("CREDENTIALS", LINES))] {
        let settings = [("ADMIN_LISTEN", "127.0.0.1:0")];
        let settings: Vec<_> = settings.into_iter().chain(credentials).collect();
        let mut ticketd = namespace.ready("accept", &settings).await;
        let (mut public, mut admin) = (ticketd.client().await, ticketd.admin().await);
        assert_eq!(admin.ask(get("/metrics")).await.status, 200);
        for request in [get("/metrics"), get_with("/metrics", OPERATOR).into_bytes()] {
            assert_eq!(public.ask(request).await.problem(404), "no such path");
        }
        for path in ["/livez", "/readyz", "/healthz"] {
            for client in [&mut public, &mut admin] {
                assert_eq!(client.ask(get(path)).await.status, 200, "{path}");
            }
        }
    }
}

/// Where senders have to say who they are, so does who asks for metrics on their listener, and no
/// source's credential is an operator's: asks with each kind, and for health with none.
#[tokio::test]
async fn metrics_beside_tickets_are_for_operators() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    for path in ["/metrics", "/version"] {
        assert_eq!(client.ask(get_with(path, OPERATOR)).await.status, 200);
    }
    client
        .send(get_with("/metrics", OPERATOR).replacen("GET", "HEAD", 1))
        .await;
    assert_eq!(client.answer_to_head().await.status, 200);
    let signed = signed(KEY_3, "m1", now_us() / 1_000_000, "").join("\r\n");
    for header in [
        "accept: text/plain",
        SHOP_1,
        SHOP_2,
        &signed,
        "authorization: Bearer",
        "authorization: Basic eDp5",
        OPERATOR.trim_end_matches('1'),
        &format!("{OPERATOR}1"),
        &OPERATOR.replace("token", "Token"),
        &format!("{OPERATOR}\r\n{OPERATOR}"),
    ] {
        for path in ["/metrics", "/version"] {
            let answer = client.ask(get_with(path, header)).await;
            assert_unauthorized(&answer, header);
            assert!(!answer.closes(), "the connection is good");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(client.ask(get(path)).await.status, 200, "{path}");
    }
    let answer = client.ask(post(&[OPERATOR], EXAMPLE)).await;
    assert_unauthorized(&answer, "an operator's ticket");
    assert_eq!(namespace.count("tickets").await, 0);
}

/// An operator is told of every source's tickets, and a source of its own: has two send, and asks.
#[tokio::test]
async fn an_operator_is_told_of_any_ticket() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    for (shop, source) in [(SHOP_1, "shop-1"), (SHOP_2, "shop-2")] {
        let id = namespace.accepted(&mut client, &[shop], EXAMPLE).await;
        namespace.row(id).await;
        let path = format!("/ticket/{id}");
        for (asking, expected) in [
            (OPERATOR, true),
            (SHOP_1, shop == SHOP_1),
            (SHOP_2, shop == SHOP_2),
        ] {
            let answer = client.ask(get_with(&path, asking)).await;
            if expected {
                assert_eq!(answer.json()["source"], source, "{asking}");
            } else {
                answer.problem(404);
            }
        }
    }
}
