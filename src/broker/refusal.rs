//! What RabbitMQ refuses to declare, as an error that says what to do.

use std::fmt::Display;

use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::error::BrokerError;

/// A right that a declaration needs.
pub(super) struct Need {
    /// As RabbitMQ names it.
    resource: String,
    right: &'static str,
}

impl Need {
    /// The right to do this with a queue or an exchange of this name.
    pub(super) fn new(kind: &str, name: impl Display, right: &'static str) -> Self {
        let resource = format!("{kind} '{name}'");
        Self { resource, right }
    }
}

/// The error for a missing right: RabbitMQ's reason names the resource, and only in newer versions
/// the right.
pub(super) fn forbidden(needs: &[Need], why: &str) -> BrokerError {
    let missing = needs.iter().find(|need| why.contains(&need.resource));
    let missing = match missing {
        Some(Need { resource, right }) => format!("the right to {right} {resource}"),
        None => "a right".into(),
    };
    BrokerError::Forbidden(format!(
        "{missing} is missing: grant it to the user of AMQP_URL or, where somebody else declares exchanges and \
         queues, set TOPOLOGY=existing ({why})"
    ))
}

/// The error for a queue that exists with other arguments than these.
pub(super) fn other_queue(
    name: &ShortString,
    setting: &str,
    arguments: &FieldTable,
    why: &str,
) -> BrokerError {
    let arguments: Vec<_> = arguments.inner().iter().map(argument).collect();
    BrokerError::Unsafe(format!(
        "the queue {name} exists with other properties than it needs to lose no ticket: durable, with {} and no \
         other arguments; delete it once it is empty, or set {setting} to another name, or, where a policy gives a \
         quorum queue what it lacks, set TOPOLOGY=existing ({why})",
        arguments.join(", ")
    ))
}

fn argument((name, value): (&ShortString, &AMQPValue)) -> String {
    match value {
        AMQPValue::LongString(text) => format!("{name}={text}"),
        AMQPValue::LongLongInt(number) => format!("{name}={number}"),
        other => format!("{name}={other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_right_is_that_on_the_resource_which_was_refused() {
        let needs = [
            Need::new("queue", "till", "configure or read"),
            Need::new("exchange", "till.dead", "write"),
        ];
        let cases = [
            (
                "ACCESS_REFUSED - access to queue 'till' in vhost '/' refused for user 'x'",
                "the right to configure or read queue 'till' is missing",
            ),
            (
                "ACCESS_REFUSED - write access to exchange 'till.dead' in vhost '/' refused for user 'x'",
                "the right to write exchange 'till.dead' is missing",
            ),
            ("ACCESS_REFUSED - something new", "a right is missing"),
        ];
        for (why, expected) in cases {
            let told = forbidden(&needs, why).to_string();
            assert!(told.starts_with(expected), "{told}");
            assert!(
                told.contains(why) && told.contains("TOPOLOGY=existing"),
                "{told}"
            );
        }
    }
}
