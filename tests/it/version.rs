//! Which ticketd it is: what a process says of itself, and what its build learns.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ticketd_testing::*;

use crate::TICKETD;

/// /version on each listener, `--version` and the metric say the same: asks all of them.
#[tokio::test]
async fn a_process_says_which_ticketd_it_is() {
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("TICKETD_REVISION"));
    let expected = serde_json::json!({ "version": version, "revision": revision });
    let namespace = Namespace::new(TICKETD).await;
    let mut serve = namespace.ready("serve", &[]).await;
    let mut consume = namespace.ready("consume", &[]).await;
    for mut client in [serve.client().await, consume.admin().await] {
        assert_eq!(client.ask(get("/version")).await.json(), expected);
        let metrics = client.ask(get("/metrics")).await;
        let info = format!("ticketd_build_info{{version=\"{version}\",revision=\"{revision}\"}}");
        assert_eq!(metric(metrics.text(), &info), Some(1.0), "{info}");
    }
    let told = Process::run::<&str>(TICKETD, &["--version"], &[]).await;
    assert_eq!(told.text(), format!("ticketd {version} ({revision})\n"));
}

/// The build takes the revision from its variable, else from git, else from nowhere, and waits for
/// no file that is not there, which would build everything each time: runs the build script in
/// folders of each kind.
#[test]
fn the_build_learns_its_revision() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("build-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script = folder.join("build");
    let compiled = Command::new("rustc")
        .args(["--edition=2024", "build.rs", "-o"])
        .arg(&script)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(compiled.unwrap().success());
    let checkout = folder.join("checkout");
    let (inner, elsewhere) = (checkout.join("inner"), folder.join("elsewhere"));
    for path in [&inner, &elsewhere] {
        fs::create_dir_all(path).unwrap();
    }
    git(&checkout, &["init", "--quiet"]);
    git(
        &checkout,
        &["commit", "--quiet", "--allow-empty", "--message=x"],
    );
    let commit = git(&checkout, &["rev-parse", "HEAD"]);
    let learnt = |at: &Path, variable: &str| revision(at, run(&script, at, variable));
    assert_eq!(learnt(&checkout, "").as_deref(), Some(commit.trim()));
    assert_eq!(learnt(&inner, "").as_deref(), Some("unknown"));
    assert_eq!(learnt(&elsewhere, "").as_deref(), Some("unknown"));
    for at in [&checkout, &elsewhere] {
        assert_eq!(learnt(at, "v1.2-3_x").as_deref(), Some("v1.2-3_x"));
        assert_eq!(learnt(at, "a\"b"), None);
    }
    fs::remove_dir_all(folder).unwrap();
}

fn git(at: &Path, args: &[&str]) -> String {
    let ended = Command::new("git")
        .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
        .args(args)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{args:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

fn run(script: &Path, at: &Path, variable: &str) -> Output {
    // Nothing above the test's own folders counts.
    let above = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(script);
    command.current_dir(at).env("TICKETD_REVISION", variable);
    command
        .env("GIT_CEILING_DIRECTORIES", above)
        .output()
        .unwrap()
}

/// What the build is told, if it goes on.
fn revision(at: &Path, ended: Output) -> Option<String> {
    let text = String::from_utf8(ended.stdout).unwrap();
    let told = |name: &str| {
        let start = format!("cargo::{name}=");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let awaited = told("rerun-if-changed");
    assert_eq!(awaited[0], "build.rs");
    for path in &awaited[1..] {
        assert!(at.join(path).exists(), "{path}");
    }
    let told = told("rustc-env");
    assert_eq!(ended.status.success(), !told.is_empty());
    Some(told.first()?.strip_prefix("TICKETD_REVISION=")?.to_owned())
}
