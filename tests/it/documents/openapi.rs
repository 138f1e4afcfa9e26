//! /openapi.json against the router, docs/reference/http.md and what a running process answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use ticketd_testing::*;

use super::http::{allowed, documented};
use super::{codes, root, rows_of};
use crate::TICKETD;

const DESCRIPTION: &str = include_str!("../../../src/http/handlers/openapi.json");

/// A ticket that nobody has sent.
const UNKNOWN: &str = "/ticket/018f0000-0000-7000-8000-000000000001";

/// Headers that HTTP itself brings.
const OF_HTTP: [&str; 4] = ["connection", "content-length", "content-type", "date"];

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// Each path of the description, and the methods that it takes.
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let description = description();
    let paths = description["paths"].as_object().unwrap().iter();
    let methods = |path: &Value| -> BTreeSet<String> {
        let methods = path.as_object().unwrap().keys();
        methods.map(|method| method.to_uppercase()).collect()
    };
    paths
        .map(|(path, operations)| (path.clone(), methods(operations)))
        .collect()
}

/// The paths that the router's source names.
fn routed() -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("src/http/router.rs")).unwrap();
    let texts = source.split('"').skip(1).step_by(2);
    let paths = texts.filter(|text| text.starts_with('/'));
    paths
        .map(|path| match path {
            "/ticket/" => "/ticket/{id}".to_owned(),
            path => path.to_owned(),
        })
        .collect()
}

/// The description has the routes of the router and of the reference, each with the methods that it
/// takes, and no others: compares them, and asks a running process.
#[tokio::test]
async fn every_route_is_described() {
    let described = described();
    let paths: BTreeSet<_> = described.keys().cloned().collect();
    assert_eq!(paths, routed(), "openapi.json and router.rs");
    let rows = rows_of("http", "route");
    let named = rows.iter().flat_map(|row| codes(&row[0]));
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    assert_eq!(paths, named, "openapi.json and http.md");

    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let address = ticketd.address("LISTEN").await;
    for (path, methods) in described {
        let path = path.replace("/ticket/{id}", UNKNOWN);
        let allowed = allowed(address, &path).await.expect(&path);
        let allowed: BTreeSet<_> = allowed.split(", ").map(str::to_owned).collect();
        assert_eq!(methods, allowed, "{path}");
    }
}

/// Each problem of the reference is described, word for word and with its status, and what is described
/// beyond them ticketd has the words of.
#[test]
fn every_problem_is_described() {
    let description = description();
    let responses = description["components"]["responses"].as_object().unwrap();
    let described: BTreeSet<_> = responses.values().flat_map(details).collect();
    let documented = documented().into_iter();
    let documented: BTreeSet<_> = documented
        .map(|(_, status, detail)| (status, detail))
        .collect();
    let missing: Vec<_> = documented.difference(&described).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let binary = fs::read(TICKETD).unwrap();
    for (status, detail) in described.difference(&documented) {
        let is_there = memchr::memmem::find(&binary, detail.as_bytes()).is_some();
        assert!(is_there, "{status} {detail}");
    }
}

/// The Postman collection has each route but those of HEAD: compares both. `make postman` compares
/// all of it.
#[test]
fn every_route_is_in_the_collection() {
    let file = root().join("docs/clients/ticketd.postman_collection.json");
    let collection: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let folders = collection["item"].as_array().unwrap().iter();
    let requests = folders.flat_map(|folder| folder["item"].as_array().unwrap());
    let collected: BTreeSet<_> = requests.map(|item| collected(&item["request"])).collect();
    let routes = described().into_iter();
    let routes = routes.flat_map(|(path, methods)| {
        let path = path.replace("{id}", ":id");
        methods
            .into_iter()
            .map(move |method| (method, path.clone()))
    });
    let routes: BTreeSet<_> = routes.filter(|(method, _)| method != "HEAD").collect();
    assert_eq!(collected, routes, "make postman KEEP=1");
}

fn collected(request: &Value) -> (String, String) {
    let path = request["url"]["path"].as_array().unwrap().iter();
    let path: Vec<_> = path.map(|part| part.as_str().unwrap()).collect();
    let method = request["method"].as_str().unwrap().to_owned();
    (method, format!("/{}", path.join("/")))
}

/// The status of a problem, and each detail that it may have.
fn details(response: &Value) -> Vec<(u16, String)> {
    let own = &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"];
    let Some(status) = own["status"]["const"].as_u64() else {
        return Vec::new();
    };
    let details = own["detail"]["examples"].as_array().unwrap().iter();
    details
        .map(|detail| (status.try_into().unwrap(), detail.as_str().unwrap().into()))
        .collect()
}

/// It is of this version, and to be had without a credential where others want one.
#[tokio::test]
async fn anyone_may_have_the_description() {
    assert_eq!(description()["info"]["version"], env!("CARGO_PKG_VERSION"));
    let namespace = Namespace::new(TICKETD).await;
    let credentials = format!("shop bearer {}", "t".repeat(40));
    let settings = [("CREDENTIALS", credentials.as_str())];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let answer = ticketd.client().await.ask(get("/openapi.json")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), description());
    let version = ticketd.client().await.ask(get("/version")).await;
    version.problem(401);
}

/// What a process answers has a status, a type and headers that are described: asks for some of each
/// route. `make test_openapi` looks deeper.
#[tokio::test]
async fn answers_are_described() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let check = |body: &str| {
        String::from_utf8(post(&[], body))
            .unwrap()
            .replacen("/ticket", "/check", 1)
    };
    let coded = "content-encoding: br";
    let requests: [(&str, Vec<u8>); 17] = [
        ("/ticket", post(&["idempotency-key: 1"], EXAMPLE)),
        ("/ticket", post(&[], "")),
        ("/ticket", post(&[coded], EXAMPLE)),
        ("/ticket", head(&[], 65_537).into_bytes()),
        ("/ticket/{id}", get(UNKNOWN)),
        ("/tickets", get("/tickets")),
        ("/tickets", get("/tickets?limit=0")),
        (
            "/tickets",
            b"GET /tickets HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_vec(),
        ),
        ("/check", check(EXAMPLE).into_bytes()),
        ("/check", check("").into_bytes()),
        ("/", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
        ("/", get("/")),
        ("/metrics", get("/metrics")),
        ("/version", get("/version")),
        ("/livez", get("/livez")),
        ("/readyz", get("/readyz")),
        ("/openapi.json", get("/openapi.json")),
    ];
    let description = description();
    for (path, request) in requests {
        let answer = ticketd.client().await.ask(&request).await;
        let method = if request.starts_with(b"POST") {
            "post"
        } else {
            "get"
        };
        let operation = &description["paths"][path][method];
        assert_described(&description, operation, &answer);
    }
}

fn assert_described(description: &Value, operation: &Value, answer: &Answer) {
    let response = &operation["responses"][answer.status.to_string()];
    let response = match response["$ref"].as_str() {
        Some(at) => description.pointer(at.trim_start_matches('#')).unwrap(),
        None => response,
    };
    assert!(response.is_object(), "{answer:?}");
    let content_type = answer.header("content-type").unwrap_or_default();
    let (media_type, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    assert!(response["content"][media_type].is_object(), "{answer:?}");
    let described = response["headers"].as_object().unwrap().keys();
    let described: Vec<_> = described.map(|name| name.to_lowercase()).collect();
    for (name, _) in &answer.headers {
        let is_known = OF_HTTP.contains(&name.as_str()) || described.contains(name);
        assert!(is_known, "{name}: {answer:?}");
    }
}
