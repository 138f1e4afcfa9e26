//! The profile `scale` of docker-compose.yml.

use std::time::Duration;

use ticketd_testing::*;

use super::{lines, seconds, services, value};
use crate::TICKETD;

const BALANCER: &str = include_str!("../../../deploy/conf/haproxy.cfg");

/// The profile `scale` has two processes of each role, that are the plain one's but for the role, and a balancer
/// that finds them: reads its services and the balancer's settings.
#[tokio::test]
async fn the_profile_scale_has_two_of_each_role() {
    let services = services();
    let of_it: Vec<_> = services
        .iter()
        .filter(|(_, lines)| lines.contains(&"profiles: [scale]"))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(of_it, ["accept", "balancer", "consume"]);
    for role in ["accept", "consume"] {
        let lines = &services[role];
        assert_eq!(value(lines, "command"), format!("[{role}]"));
        assert_eq!(value(lines, "replicas"), "2");
        assert!(
            !lines.contains(&"ports:"),
            "two cannot have one port of the host"
        );
        let settings = ["DATABASE_URL", "AMQP_URL"];
        for name in settings {
            assert_eq!(
                value(lines, name),
                value(&services["ticketd"], name),
                "{role}"
            );
        }
        let given =
            settings.map(|name| (name, value(lines, name).replace("${", "").replace(":-", "")));
        let given = given.map(|(name, url)| (name, url.replace('}', "")));
        let mut given: Vec<_> = given
            .iter()
            .map(|(name, url)| (*name, url.as_str()))
            .collect();
        given.push(("ADMIN_LISTEN", value(lines, "ADMIN_LISTEN")));
        let shown = Process::run(TICKETD, &["config", role], &given).await;
        assert_eq!(shown.code(), Some(0), "{role}: {}", shown.log);
        assert!(
            shown
                .text()
                .contains("ADMIN_LISTEN\t0.0.0.0:8081\tenvironment"),
            "{role}"
        );
    }
    let published = "- \"127.0.0.1:${SCALE_PORT:-8090}:8080\"";
    assert!(
        services["balancer"].contains(&published),
        "for this host alone"
    );
}

/// The balancer knows a lame duck for one well before it takes no tickets any more, and asks where that is told.
#[tokio::test]
async fn the_balancer_notices_a_lame_duck() {
    let mut words = BALANCER
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let check = words
        .find_map(|line| line.strip_prefix("default-server check "))
        .unwrap();
    let number = |name: &str| {
        let (_, rest) = check.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let every: u64 = number("inter ")
        .strip_suffix("ms")
        .unwrap()
        .parse()
        .unwrap();
    let fails: u64 = number("fall ").parse().unwrap();
    let noticed = Duration::from_millis(every * fails);
    let help = Process::run::<&str>(TICKETD, &["accept", "--help"], &[]).await;
    let (_, rest) = help.text().split_once("[env: LAME_DUCK=]").unwrap();
    assert!(noticed * 2 <= seconds(rest, "[default"), "{noticed:?}");
    assert!(BALANCER.contains("option httpchk GET /readyz\n"));
    assert!(
        BALANCER.contains(" accept:8080 ")
            && lines(super::DOCKERFILE, "EXPOSE ").any(|port| port == "8080")
    );
}
