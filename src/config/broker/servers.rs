//! The servers that one AMQP_URL names.

use super::url::{AmqpUrl, amqp_url, has_scheme};

/// Maximum of servers: each may take seconds to turn out to be away.
const SERVERS_MAX: usize = 16;

/// The servers of one RabbitMQ; at least one.
#[derive(Debug, Clone)]
pub(in crate::config) struct AmqpUrls(Vec<AmqpUrl>);

impl Default for AmqpUrls {
    fn default() -> Self {
        Self(vec![AmqpUrl::default()])
    }
}

impl AmqpUrls {
    /// Each of them, in the order in which they were given.
    pub(super) fn into_servers(self) -> Vec<AmqpUrl> {
        self.0
    }

    /// As they may be shown: see [`AmqpUrl::masked`].
    pub(in crate::config) fn masked(&self) -> String {
        let urls: Vec<_> = self.0.iter().map(AmqpUrl::masked).collect();
        urls.join(",")
    }
}

/// Reads a URL, or several with commas between.
pub(in crate::config) fn amqp_urls(text: &str) -> Result<AmqpUrls, String> {
    let items = items(text);
    let count = items.len();
    if count > SERVERS_MAX {
        return Err(format!("it names more than {SERVERS_MAX} servers"));
    }
    let mut urls = Vec::new();
    for (at, item) in (1..).zip(items) {
        let url = server(&item, count == 1).map_err(|why| match count {
            1 => why,
            _ => format!("server {at} of {count}: {why}"),
        });
        urls.push(url?);
    }
    check_alike(&urls)?;
    Ok(AmqpUrls(urls))
}

/// Divides at each comma that a URL follows, as a password may have others.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for piece in text.split(',') {
        match items.last_mut() {
            Some(item) if !has_scheme(piece.trim_start()) => {
                item.push(',');
                item.push_str(piece);
            }
            _ => items.push(piece.to_owned()),
        }
    }
    items
}

fn server(item: &str, is_only: bool) -> Result<AmqpUrl, String> {
    let item = item.trim();
    if item.is_empty() && !is_only || item.starts_with(',') || item.ends_with(',') {
        return Err("there is nothing beside a comma".into());
    }
    amqp_url(item)
}

/// Tickets that are published by one server are to be found by another.
fn check_alike(urls: &[AmqpUrl]) -> Result<(), String> {
    let differ = urls.iter().zip(urls.iter().skip(1));
    for (one, next) in differ {
        if one.scheme != next.scheme {
            return Err(
                "its servers begin with amqp:// and with amqps://: all must have the same".into(),
            );
        }
        if one.vhost != next.vhost {
            return Err("its servers have different vhosts: all must have the same".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let urls = amqp_urls(text).expect(text).into_servers();
        urls.iter().map(AmqpUrl::address).collect()
    }

    #[test]
    fn each_server_is_a_url_of_its_own() {
        let text = "amqp://u:p@a/v,AMQP://w:q@b:1/v?heartbeat=5 , amqp://[::1]:2/v";
        assert_eq!(addresses(text), ["a:5672", "b:1", "[::1]:2"]);
        let urls = amqp_urls(text).expect("valid");
        let shown = "amqp://u:***@a:5672/v,amqp://w:***@b:1/v,amqp://guest:***@[::1]:2/v";
        assert_eq!(urls.masked(), shown);
        let [a, b, _] = &urls.into_servers()[..] else {
            panic!("three servers")
        };
        assert_eq!(a.authority.userinfo.password, "p");
        assert_eq!((a.query.heartbeat, b.query.heartbeat), (Some(10), Some(5)));
        assert_eq!(addresses("amqps://a,amqps://b/%2f"), ["a:5671", "b:5671"]);
    }

    #[test]
    fn a_comma_in_a_password_divides_nothing() {
        for (text, passwords) in [
            ("amqp://u:p,ss@a", &["p,ss"][..]),
            ("amqp://u:,,@a", &[",,"]),
            ("amqp://u:1,@a,amqp://u:,2@b", &["1,", ",2"]),
            ("amqp://u:amqp@a,amqp://u:2%2C@b", &["amqp", "2,"]),
        ] {
            let urls = amqp_urls(text).expect(text).into_servers();
            let read = urls.iter().map(|url| &*url.authority.userinfo.password);
            assert_eq!(read.collect::<Vec<_>>(), passwords, "{text}");
        }
    }

    #[test]
    fn a_wrong_list_is_refused_with_the_reason() {
        let many = vec!["amqp://a"; SERVERS_MAX + 1].join(",");
        for (text, why) in [
            ("amqp://a,amqps://b", "begin with amqp:// and with amqps://"),
            ("amqp://a/v,amqp://b/w", "different vhosts"),
            ("amqp://a/v,amqp://b", "different vhosts"),
            (
                "amqp://a,,amqp://b",
                "server 1 of 2: there is nothing beside a comma",
            ),
            (
                "amqp://a, ,amqp://b",
                "server 1 of 2: there is nothing beside a comma",
            ),
            (
                ",amqp://a",
                "server 1 of 2: there is nothing beside a comma",
            ),
            (
                "amqp://a,amqp://b/,",
                "server 2 of 2: there is nothing beside a comma",
            ),
            ("amqp://a/v, ", "there is nothing beside a comma"),
            (",", "there is nothing beside a comma"),
            ("amqp://a,amqp://b:x", "server 2 of 2: invalid port number"),
            ("amqp://a,b", "several servers are whole URLs"),
            ("amqp://a:1,b:2/v", "several servers are whole URLs"),
            ("amqp://u:p@a,u:p@b", "several servers are whole URLs"),
            ("amqp://u:p@a/v,b/v", "several servers are whole URLs"),
            ("amqp://u:p@a,http://b", "several servers are whole URLs"),
            (
                "http://a,amqp://b",
                "server 1 of 2: it does not begin with amqp://",
            ),
            (&many, "more than 16 servers"),
        ] {
            let error = amqp_urls(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
