//! docs/clients/ as a new integrator runs it: each program sends one sale to a real ticketd, by way of a
//! server in front of it that answers 503 first, and then breaks off in the middle of answers.

mod trouble;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use futures_util::future::join_all;
use ticketd_testing::*;
use trouble::{Attempt, Trouble, Troubled};

use crate::TICKETD;

/// What an integrator types before the URL and the sale.
struct Program {
    file: &'static str,
    /// Without the file.
    command: &'static [&'static str],
    /// Lines without comments, imports and what only closes; more would not be read.
    lines_max: usize,
}

const CURL: Program = program("curl.sh", &["bash"]);
const PYTHON: Program = program("python.py", &["python3", "-B"]);
const JAVASCRIPT: Program = program("javascript.mjs", &["node"]);
const PHP: Program = program("php.php", &["php"]);
const JAVA: Program = program("Ticket.java", &["java"]);
const CSHARP: Program = program("Ticket.cs", &["dotnet", "run"]);
const GO: Program = Program {
    file: "go.go",
    command: &["go", "run"],
    // gofmt gives each error a line, and another to its end.
    lines_max: 35,
};

const ALL: [&Program; 7] = [&CURL, &PYTHON, &JAVASCRIPT, &PHP, &JAVA, &CSHARP, &GO];

/// What befalls a sale's first attempts. Pauses grow, so the second would take too long for each change.
const QUICK: [Trouble; 2] = [Trouble::Busy, Trouble::CutHead];
const EVERY: [Trouble; 3] = [Trouble::Busy, Trouble::CutHead, Trouble::CutBody];

const fn program(file: &'static str, command: &'static [&'static str]) -> Program {
    Program {
        file,
        command,
        lines_max: 25,
    }
}

#[tokio::test]
async fn curl_sends_a_sale_once() {
    CURL.sends_a_sale_once(&QUICK, Missing::Fails).await;
}

#[tokio::test]
async fn python_sends_a_sale_once() {
    PYTHON.sends_a_sale_once(&QUICK, Missing::IsSkipped).await;
}

#[tokio::test]
async fn javascript_sends_a_sale_once() {
    JAVASCRIPT
        .sends_a_sale_once(&QUICK, Missing::IsSkipped)
        .await;
}

#[tokio::test]
async fn php_sends_a_sale_once() {
    PHP.sends_a_sale_once(&QUICK, Missing::IsSkipped).await;
}

/// All of them, with what `make test_clients` installs.
#[tokio::test]
#[ignore = "make test_clients: go and java take seconds to start"]
async fn every_client_sends_a_sale_once() {
    let runs = ALL.map(|program| {
        // Debian has no package of it.
        let missing = match program.file == CSHARP.file {
            true => Missing::IsSkipped,
            false => Missing::Fails,
        };
        program.sends_a_sale_once(&EVERY, missing)
    });
    join_all(runs).await;
}

/// Each is as short as the page says, and is in it: counts lines.
#[test]
fn clients_are_short_and_listed() {
    let page = fs::read_to_string(folder().join("README.md")).unwrap();
    for program in ALL {
        assert!(
            page.contains(&format!("({})", program.file)),
            "{}",
            program.file
        );
        let lines = program.lines();
        assert!(lines <= program.lines_max, "{}: {lines}", program.file);
    }
}

/// What a program that cannot be run here means.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Fails,
    IsSkipped,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients")
}

impl Program {
    async fn sends_a_sale_once(&self, troubles: &[Trouble], missing: Missing) {
        if missing == Missing::IsSkipped && !self.can_run() {
            // Not by a macro, whose output is seen of tests that fail only.
            let skipped = format!(
                "SKIPPED: docs/clients/{}: no {} that runs it\n",
                self.file, self.command[0]
            );
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return;
        }
        let namespace = Namespace::new(TICKETD).await;
        let token = "t".repeat(40);
        let credentials = format!("shop bearer {token}");
        let settings = [("CREDENTIALS", credentials.as_str())];
        let mut ticketd = namespace.ready("serve", &settings).await;
        let server = Troubled::start(ticketd.address("LISTEN").await, troubles).await;
        let sales = Sales::new();
        // As no text mode and no trimming leaves it.
        let text = EXAMPLE.replace('\n', "\r\n") + " \r\n\r\n";
        let sale = sales.sale("sale-4711.txt", &text);
        self.accepted(&server, &sale, &token).await;
        // A run of its own, as after a crash.
        self.accepted(&server, &sale, &token).await;
        self.assert_patient(&server.attempts(), troubles.len() + 2);
        self.rejected(&server, &sales.sale("empty.txt", ""), &token)
            .await;
        ticketd.drained().await;
        namespace.stored(1).await;
        let rows = namespace.rows().await;
        assert_eq!(rows[0].ticket_text, Some(text), "{}", self.file);
    }

    /// It ends with what ticketd says of the ticket.
    async fn accepted(&self, server: &Troubled, sale: &Path, token: &str) {
        let output = self.run(server, sale, token).await;
        assert_eq!(output.status.code(), Some(0), "{}: {output:?}", self.file);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.contains("{\"id\":\""), "{}: {out}", self.file);
    }

    /// It has tried so often, always with the key of the first time, and not before it was asked to.
    fn assert_patient(&self, attempts: &[Attempt], count: usize) {
        // One that has read a status may take half an answer for the answer.
        let counts = count - 1..=count;
        assert!(
            counts.contains(&attempts.len()),
            "{}: {attempts:?}",
            self.file
        );
        let keys: Vec<_> = attempts.iter().map(|attempt| &attempt.key).collect();
        assert!(
            keys.iter().all(|key| *key == keys[0]),
            "{}: {keys:?}",
            self.file
        );
        assert!(keys[0].len() >= 32, "{}: {keys:?}", self.file);
        let pause = attempts[1].at - attempts[0].at;
        let asked = Duration::from_secs(trouble::RETRY_AFTER_SECONDS);
        assert!(pause >= asked, "{}: {pause:?}", self.file);
    }

    /// What no retry would mend is sent once, and said.
    async fn rejected(&self, server: &Troubled, sale: &Path, token: &str) {
        let before = server.attempts().len();
        let output = self.run(server, sale, token).await;
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", self.file);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.contains("the ticket is empty"),
            "{}: {error}",
            self.file
        );
        assert_eq!(server.attempts().len(), before + 1, "{}", self.file);
    }

    async fn run(&self, server: &Troubled, sale: &Path, token: &str) -> Output {
        let mut command = Command::new(self.command[0]);
        command
            .args(&self.command[1..])
            .arg(folder().join(self.file));
        command.arg(server.url()).arg(sale);
        command.env("TICKETD_TOKEN", token);
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.unwrap().expect(self.command[0])
    }

    fn can_run(&self) -> bool {
        let version = Command::new(self.command[0]).arg("--version").output();
        let Ok(version) = version else { return false };
        // An older one runs no single file.
        let major = |version: &str| version.split('.').next()?.parse::<u32>().ok();
        let version = String::from_utf8_lossy(&version.stdout);
        self.file != CSHARP.file || major(&version).is_some_and(|major| major >= 10)
    }

    /// How many lines it has, as its bound counts them.
    fn lines(&self) -> usize {
        let text = fs::read_to_string(folder().join(self.file)).unwrap();
        let text = without(&text, "\"\"\"", "\"\"\"");
        let text = without(&text, "import (", ")");
        let starts = ["//", "#", "import ", "using System", "<?php", "package "];
        let counts = |line: &&str| {
            let line = line.trim();
            !starts.iter().any(|start| line.starts_with(start))
                && line.contains(|c: char| c.is_alphanumeric())
        };
        text.lines().filter(counts).count()
    }
}

/// A text without the first part from here to there.
fn without(text: &str, from: &str, to: &str) -> String {
    let Some((before, rest)) = text.split_once(from) else {
        return text.to_owned();
    };
    let (_, after) = rest.split_once(to).unwrap();
    format!("{before}{after}")
}

/// A folder of a test's own, which goes with the value.
struct Sales(PathBuf);

impl Sales {
    fn new() -> Self {
        let name = format!("ticketd-clients-{}", uuid::Uuid::now_v7());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn sale(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Sales {
    fn drop(&mut self) {
        // What is left behind is in the folder for such things.
        let _removed = fs::remove_dir_all(&self.0);
    }
}
