//! Settings as they are read.

use super::*;

fn parse(args: &[&str]) -> Result<Cli, String> {
    let arguments = [&["ticketd"], args].concat();
    let arguments = arguments.into_iter().map(Into::into).collect();
    Cli::read_from(arguments).map_err(|error| error.to_string())
}

#[test]
fn a_wrong_value_is_refused_with_its_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["accept", "--amqp-url", "http://x"], "--amqp-url"),
        (
            &["accept", "--amqp-url", "amqp://x", "--amqp-tls-ca", "x"],
            "--amqp-url",
        ),
        (&["accept", "--amqp-tls-cert", "x"], "--amqp-tls-key"),
        (&["accept", "--listen", "8080"], "--listen"),
        (
            &["accept", "--publish-group-max", "0"],
            "--publish-group-max",
        ),
        (&["accept", "--confirm-timeout", "5"], "--confirm-timeout"),
        (
            &["consume", "--database-url", "postgres://a:b@[::1"],
            "--database-url",
        ),
        (
            &[
                "consume",
                "--database-url",
                "postgres://x",
                "--prefetch",
                "2001",
            ],
            "--prefetch",
        ),
        (
            &["migrate", "--database-url", "postgres://x/y?sslmode=allow"],
            "--database-url",
        ),
    ];
    for (args, name) in cases {
        let error = parse(args).expect_err("must be refused");
        assert!(error.contains(name), "{args:?}: {error}");
    }
}

#[test]
fn names_follow_the_queue() {
    let cli = parse(&["accept", "--queue", "till"]).expect("valid");
    let Command::Accept(settings) = cli.command else {
        panic!("accept")
    };
    assert_eq!(settings.common.broker.exchange(), "till");
    assert_eq!(settings.common.broker.unrouted_queue(), "till.unrouted");
    assert_eq!(settings.common.broker.dead_queue(), "till.dead");
}

#[test]
fn passwords_are_not_shown_when_settings_are() {
    let cli = parse(&[
        "serve",
        "--amqp-url=amqp://till:Xq7ZvJ9w@rabbit,amqp://till:Xq7ZvJ9w@other",
        "--rabbitmq-url=amqp://till:Xq7ZvJ9w@rabbit",
        "--database-url=postgres://till:Xq7ZvJ9w@db/x",
    ]);
    let cli = cli.expect("valid");
    let Command::Serve(settings) = &cli.command else {
        panic!("serve")
    };
    let servers = settings.common.broker.servers();
    for shown in [
        format!("{cli:?}"),
        format!("{cli:#?}"),
        format!("{servers:?}"),
    ] {
        assert!(shown.contains("till") || shown.contains("rabbit"));
        assert!(!shown.contains("Xq7Z"), "{shown}");
    }
}

/// Each setting that has bounds: one below, the least, the most, one above; none where nothing is
/// below. `x200` stands for a name of 200 bytes.
#[rustfmt::skip]
const BOUNDS: &[(&str, Option<&str>, &str, &str, &str)] = &[
    ("queue", Some("x0"), "x1", "x200", "x201"),
    ("exchange", Some("x0"), "x1", "x200", "x201"),
    ("unrouted-queue", Some("x0"), "x1", "x200", "x201"),
    ("dead-queue", Some("x0"), "x1", "x200", "x201"),
    ("port", Some("0"), "1", "65535", "65536"),
    ("publish-group-max", Some("0"), "1", "16384", "16385"),
    ("wire-format", Some("0"), "1", "2", "3"),
    ("inflight-max", Some("0"), "1", "4194304", "4194305"),
    ("body-max", Some("0"), "1", "1048576", "1048577"),
    ("bulk-max", Some("0"), "1", "1073741824", "1073741825"),
    ("confirm-timeout", Some("99999us"), "100ms", "1day", "86400001ms"),
    ("lame-duck", None, "0s", "1day", "86400001ms"),
    ("prefetch", Some("0"), "1", "2000", "2001"),
    ("batch-rows", Some("0"), "1", "1000000", "1000001"),
    ("batch-bytes", Some("1023"), "1024", "268435456", "268435457"),
    ("batch-age", None, "0s", "1day", "86400001ms"),
    ("product-refresh", None, "0s", "1day", "86400001ms"),
    ("partition-width", Some("86399s"), "1d", "366d", "31622401s"),
    ("retention", Some("86399s"), "1d", "36500d", "3153600001s"),
    ("writers", Some("0"), "1", "64", "65"),
    ("hold-max", Some("999ms"), "1s", "1day", "86400001ms"),
    ("shutdown-grace", None, "0s", "1day", "86400001ms"),
];

/// Settings that have no bounds.
const UNBOUNDED: &[&str] = &[
    "amqp-url",
    "rabbitmq-url",
    "cloudamqp-url",
    "amqp-url-file",
    "rabbitmq-url-file",
    "cloudamqp-url-file",
    "database-url-file",
    "database-url",
    "topology",
    "listen",
    "admin-listen",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "amqp-tls-ca",
    "amqp-tls-cert",
    "amqp-tls-key",
    "pgsslmode",
    "pgsslrootcert",
    "pgsslcert",
    "pgsslkey",
    "log-format",
    "rust-log",
    "credentials-file",
    "credentials",
    "page-hosts",
    "page",
    // Its numbers have: see rate.rs.
    "rate-limit",
];

/// `serve` with this setting, as it would be shown.
fn serve(name: &str, value: &str) -> Result<String, String> {
    let value = match value.strip_prefix('x').map(str::parse::<usize>) {
        Some(bytes) => {
            let bytes = bytes.expect("a length");
            format!("{}{}", "é".repeat(bytes / 2), "x".repeat(bytes % 2))
        }
        None => value.to_owned(),
    };
    let (flag, database) = (format!("--{name}={value}"), "--database-url=host=db");
    parse(&["serve", database, &flag]).map(|cli| format!("{cli:?}"))
}

#[test]
fn every_bound_is_where_it_is_said_to_be() {
    for &(name, below, least, most, above) in BOUNDS {
        let (least, most) = (serve(name, least), serve(name, most));
        assert!(least.is_ok() && most.is_ok(), "{name}: {least:?} {most:?}");
        assert_ne!(least, most, "{name} is not the value that was given");
        for value in below.into_iter().chain([above]) {
            let error = serve(name, value).expect_err("must be refused");
            assert!(error.contains(&format!("--{name} ")), "{value}: {error}");
        }
    }
}

#[test]
fn every_setting_is_among_the_bounded_or_the_others() {
    let mut command = read::command();
    command.build();
    for role in ["serve", "accept", "consume", "migrate", "dead"] {
        let role = command.find_subcommand(role).expect("a role");
        for name in role
            .get_arguments()
            .filter_map(|argument| argument.get_long())
        {
            let is_bounded = BOUNDS.iter().any(|(bounded, ..)| *bounded == name);
            assert!(
                is_bounded || UNBOUNDED.contains(&name) || name == "help",
                "{name}: say what its bounds are"
            );
        }
    }
}
