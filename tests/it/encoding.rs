//! A database that cannot hold every character of a ticket.

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// A database in another encoding than UTF8 is refused at start, by every command that would write to
/// it, with a message that names the setting and the encoding; what is queued stays where it is. Tries
/// one encoding that lacks most characters, and one that knows none.
#[tokio::test]
async fn another_encoding_is_refused_at_start() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        refused(encoding).await;
    }
}

async fn refused(encoding: &str) {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("accept", &[]).await;
    let body = EXAMPLE.as_bytes();
    namespace
        .publish(ticket_properties(Uuid::now_v7(), 1), body)
        .await;
    let options = format!("encoding '{encoding}' template template0 locale 'C'");
    let (url, _client) = namespace.own_database(&options).await;
    for role in ["migrate", "consume", "serve"] {
        let mut settings = vec![("DATABASE_URL", url.as_str())];
        settings.extend((role == "serve").then_some(("LAME_DUCK", "0s")));
        let ended = namespace.run(&[role], &settings).await;
        assert_eq!(ended.code(), Some(1), "{}", ended.log);
        let error = ended.log.lines().find(|line| line.contains("ERROR"));
        let error = error.unwrap_or_else(|| panic!("no error: {}", ended.log));
        for word in ["DATABASE_URL", encoding, "UTF8"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    assert_eq!(namespace.depth(namespace.queue()).await, 1);
    ticketd.drained().await;
}
