//! Settings as they are read.

use super::*;

fn parse(args: &[&str]) -> Result<Cli, String> {
    Cli::try_parse_from([&["ticketd"], args].concat()).map_err(|error| error.to_string())
}

#[test]
fn a_wrong_value_is_refused_with_its_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["accept", "--amqp-url", "http://x"], "--amqp-url"),
        (&["accept", "--amqp-url", "amqps://x"], "--amqp-url"),
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
            &[
                "migrate",
                "--database-url",
                "postgres://x/y?sslmode=require",
            ],
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
    assert_eq!(settings.broker.exchange(), "till");
    assert_eq!(settings.broker.unrouted_queue(), "till.unrouted");
    assert_eq!(settings.broker.dead_queue(), "till.dead");
}

#[test]
fn passwords_are_not_shown_when_settings_are() {
    let cli = parse(&[
        "serve",
        "--amqp-url=amqp://till:Xq7ZvJ9w@rabbit",
        "--rabbitmq-url=amqp://till:Xq7ZvJ9w@rabbit",
        "--database-url=postgres://till:Xq7ZvJ9w@db/x",
    ]);
    let cli = cli.expect("valid");
    let Command::Serve(settings) = &cli.command else {
        panic!("serve")
    };
    let url = settings.broker.url().expect("valid");
    for shown in [format!("{cli:?}"), format!("{cli:#?}"), format!("{url:?}")] {
        assert!(shown.contains("till") || shown.contains("rabbit"));
        assert!(!shown.contains("Xq7Z"), "{shown}");
    }
}
