//! GET /: a page for people, in one file that fetches only what this listener answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest, Sha256};

use crate::http::response::{FullResponse, response, with};

const FILE: &str = include_str!("page.html");

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What stands in the file, and is put right for a listener.
const TAKES_TICKETS: &str = "data-takes=\"true\"";
const WANTS_TOKEN: &str = "data-token=\"false\"";

/// Answers GET /. It holds no data: its script fetches them.
#[derive(Clone)]
pub(crate) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// The page of a listener that takes tickets or not, and asks for an operator's token or not.
    pub(crate) fn new(takes_tickets: bool, wants_token: bool) -> Self {
        let html = FILE
            .replacen(TAKES_TICKETS, &format!("data-takes=\"{takes_tickets}\""), 1)
            .replacen(WANTS_TOKEN, &format!("data-token=\"{wants_token}\""), 1);
        // Only ASCII goes in. Were it otherwise, the page would do nothing, and not anything.
        let policy = HeaderValue::try_from(policy(&html))
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self {
            html: html.into(),
            policy,
        }
    }

    /// The page, which may run the style and the script in it and no other, and talk to this listener
    /// alone.
    pub(crate) fn get(&self) -> FullResponse {
        let headers = [
            (CONTENT_SECURITY_POLICY, self.policy.clone()),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        let page = response(StatusCode::OK, HTML, self.html.clone());
        headers.into_iter().fold(page, with)
    }
}

fn policy(html: &str) -> String {
    let (style, script) = (hash(html, "style"), hash(html, "script"));
    format!(
        "default-src 'none'; connect-src 'self'; script-src '{script}'; style-src '{style}'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'"
    )
}

/// The hash, as a policy has it, of what is between the tags of the only element of this name.
fn hash(html: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let after = html.split_once(&open).map_or("", |(_, after)| after);
    let content = after.split_once(&close).map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_style_and_one_script_are_allowed_by_their_hashes() {
        for element in ["style", "script"] {
            assert_eq!(FILE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert_eq!(
                FILE.matches(&format!("<{element}>")).count(),
                1,
                "{element}"
            );
        }
        // openssl dgst -sha256 -binary | base64
        let hash = hash("<b><style>a{}</style>", "style");
        assert_eq!(hash, "sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk=");
    }

    #[test]
    fn a_listener_puts_its_page_right() {
        let text = |page: Page| String::from_utf8(page.html.to_vec()).expect("text");
        for (stands, count) in [(TAKES_TICKETS, 1), (WANTS_TOKEN, 1)] {
            assert_eq!(FILE.matches(stands).count(), count, "{stands}");
        }
        assert_eq!(text(Page::new(true, false)), FILE);
        let other = text(Page::new(false, true));
        assert!(other.contains("data-takes=\"false\" data-token=\"true\""));
    }

    #[test]
    fn the_page_is_small_and_fetches_nothing_from_elsewhere() {
        assert!(FILE.len() < 40 * 1024, "{}", FILE.len());
        let namespace = "http://www.w3.org/2000/svg";
        let rest = FILE.replace(namespace, "");
        for elsewhere in [
            "//cdn",
            "http://",
            "https://",
            "innerHTML",
            "eval(",
            " style=\"",
            " onclick",
        ] {
            assert!(!rest.contains(elsewhere), "{elsewhere}");
        }
    }
}
