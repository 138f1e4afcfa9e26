//! Where the output and the logs go, and what happens when nobody reads them any more.

use std::fs::File;
use std::io::pipe;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use ticketd_testing::*;

use crate::TICKETD;

/// What a shell shows for a program that ended because nobody read its output any more.
const READER_GONE: i32 = 128 + 13;

const NONE: [(&str, &str); 0] = [];

fn command<V: AsRef<str>>(args: &[&str], settings: &[(&str, V)]) -> Command {
    let mut command = Command::new(TICKETD);
    command.args(args).env_clear().stdin(Stdio::null());
    for (name, value) in settings {
        command.env(name, value.as_ref());
    }
    command
}

/// The end of a pipe that nobody reads.
fn broken_pipe() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs it with such an output, and returns its exit code and its log.
fn unread(args: &[&str], settings: &[(&str, String)]) -> (Option<i32>, String) {
    let output = command(args, settings).stdout(broken_pipe()).output();
    let output = output.unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A reader that has seen enough, as `head` has, ends every command that writes, with the exit code
/// that shells know and no word about it: runs each into a pipe that nobody reads.
#[tokio::test]
async fn nothing_is_said_to_a_reader_who_has_gone() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let insert = "insert into dead_tickets (ticket_id, reason, body) \
        select gen_random_uuid(), 'why', 'x' from generate_series(1, 3)";
    namespace.database.batch_execute(insert).await.unwrap();
    let number = namespace.dead().await[0].number.to_string();
    let (valid, invalid) = (sample("valid/example.txt"), sample("invalid/bad_vat.txt"));
    let settings = namespace.settings("dead", &[]);
    for args in [
        ["check", valid.to_str().unwrap(), invalid.to_str().unwrap()].as_slice(),
        &["dead", "list"],
        &["dead", "show", &number],
    ] {
        let ended = unread(args, &settings);
        assert_eq!(ended, (Some(READER_GONE), String::new()), "{args:?}");
    }
    for args in [["--help"].as_slice(), &["serve", "--help"], &["--version"]] {
        assert_eq!(
            unread(args, &settings),
            (Some(0), String::new()),
            "{args:?}"
        );
    }
}

/// Output that cannot be written for any other reason is a failure: writes to a full device.
#[tokio::test]
async fn output_that_is_lost_is_a_failure() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let insert =
        "insert into dead_tickets (ticket_id, reason, body) values (gen_random_uuid(), 'why', 'x')";
    namespace.database.batch_execute(insert).await.unwrap();
    let number = namespace.dead().await[0].number.to_string();
    let valid = sample("valid/example.txt");
    for args in [
        ["check", valid.to_str().unwrap()].as_slice(),
        &["dead", "show", &number],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(args, &namespace.settings("dead", &[]));
        let output = command.stdout(full).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {log}");
        assert!(log.contains("No space left"), "{log}");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A log that nobody reads any more stops no service: starts with one, without RabbitMQ, of which
/// there is something to log again and again.
#[tokio::test]
async fn a_service_outlives_the_reader_of_its_log() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let settings = [
        ("LISTEN", address.to_string()),
        ("AMQP_URL", "amqp://127.0.0.1:1/%2f".to_owned()),
    ];
    let mut accept = command(&["accept"], &settings);
    let mut accept = Killed(accept.stderr(broken_pipe()).spawn().unwrap());
    wait_until("it answers", async || {
        assert_eq!(accept.0.try_wait().unwrap(), None, "it ended");
        Client::connect(address).await.is_ok()
    })
    .await;
    let mut client = Client::connect(address).await.unwrap();
    assert_eq!(client.ask(get("/livez")).await.status, 200);
}

/// A wrong RUST_LOG stops the start with a message that names it, and an empty one is none: gives
/// what does not parse, and what would silence ticketd by a slip of the pen.
#[tokio::test]
async fn a_wrong_log_filter_is_named() {
    for filter in [
        "ticketd=verbose",
        "a=b=c",
        "inof",
        "ticketd=info,[",
        "=",
        "info,lapin=7",
    ] {
        for args in [["check", "x"], ["dead", "list"]] {
            let ended = Process::run(TICKETD, &args, &[("RUST_LOG", filter)]).await;
            assert_eq!(ended.code(), Some(2), "{filter}: {}", ended.log);
            assert!(ended.log.contains("RUST_LOG"), "{filter}: {}", ended.log);
        }
    }
    let valid = sample("valid/example.txt");
    let check = ["check", valid.to_str().unwrap()];
    for filter in [
        "",
        " ",
        "off",
        "INFO",
        "debug,lapin=off",
        "ticketd::consumer=trace",
        "hyper=warn,3",
    ] {
        let ended = Process::run(TICKETD, &check, &[("RUST_LOG", filter)]).await;
        assert_eq!(ended.code(), Some(0), "{filter}: {}", ended.log);
    }
    let missing = ["check", "/no/such/file"];
    let logged = async |filter: &str| {
        !Process::run(TICKETD, &missing, &[("RUST_LOG", filter)])
            .await
            .log
            .is_empty()
    };
    assert!(logged("").await, "an empty filter is the default");
    assert!(!logged("off").await);
    let by_flag = Process::run(
        TICKETD,
        &["check", "--rust-log=off", "/no/such/file"],
        &NONE,
    )
    .await;
    assert_eq!((by_flag.code(), by_flag.log.as_str()), (Some(1), ""));
}
