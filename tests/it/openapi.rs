//! /openapi.json against a running ticketd, by programs that know OpenAPI: `make test_openapi` installs them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use ticketd_testing::*;

use crate::TICKETD;

/// Where `make test_openapi` puts them.
const TOOLS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/openapi");

/// What schemathesis is told beyond the description.
const HINTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");

/// How long schemathesis looks for failures, in seconds.
const SEARCH_SECONDS: &str = "50";

/// The description follows the specification: asks openapi-spec-validator.
#[tokio::test]
#[ignore = "make test_openapi"]
async fn the_description_is_openapi() {
    let mut validator = tool("openapi-spec-validator");
    validator.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/http/handlers/openapi.json"
    ));
    succeeds(validator).await;
}

/// What comes of requests that it allows, and of those that it does not, is what it says: has
/// schemathesis try, with all of its checks.
#[tokio::test]
#[ignore = "make test_openapi"]
async fn answers_are_as_described() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let schemathesis = tool("schemathesis");
    search(schemathesis, ticketd.address("LISTEN").await).await;
}

/// The same where there are credentials, with a source's and an operator's token.
#[tokio::test]
#[ignore = "make test_openapi"]
async fn answers_are_as_described_with_credentials() {
    let (source, operator) = ("s".repeat(40), "o".repeat(40));
    let credentials = format!("shop bearer {source};watcher operator {operator}");
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("CREDENTIALS", credentials.as_str())];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut schemathesis = tool("schemathesis");
    schemathesis.arg("--config-file");
    schemathesis.arg(Path::new(HINTS).join("credentials.toml"));
    schemathesis.env("TICKETD_SOURCE_TOKEN", source);
    schemathesis.env("TICKETD_OPERATOR_TOKEN", operator);
    search(schemathesis, ticketd.address("LISTEN").await).await;
}

async fn search(mut schemathesis: Command, address: SocketAddr) {
    schemathesis.env("SCHEMATHESIS_HOOKS", "hooks");
    schemathesis.args(["run", "--checks", "all", "--workers", "2"]);
    schemathesis.args(["--continue-on-failure", "--max-time", SEARCH_SECONDS]);
    schemathesis.arg(format!("http://{address}/openapi.json"));
    succeeds(schemathesis).await;
}

/// One of the tools. It keeps what it has tried in the folder that it runs in.
fn tool(name: &str) -> Command {
    let tools = Path::new(TOOLS);
    let mut command = Command::new("python3");
    command.arg(tools.join("bin").join(name));
    command.current_dir(tools);
    command.env("PYTHONPATH", format!("{TOOLS}:{HINTS}"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

async fn succeeds(mut command: Command) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect("python3 is installed");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}
