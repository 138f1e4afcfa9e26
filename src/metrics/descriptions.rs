//! What each metric is, in the words that a scrape has of it.

use ::metrics::{describe_counter, describe_gauge, describe_histogram};

/// Describes all of them.
pub(super) fn describe() {
    accepting();
    publishing();
    storing();
    process();
}

fn accepting() {
    describe_counter!(
        "ticketd_http_requests_total",
        "Requests answered, by status code and route."
    );
    describe_histogram!(
        "ticketd_http_request_duration_seconds",
        "From a request's head to its answer, by route."
    );
    describe_counter!(
        "ticketd_tls_handshakes_total",
        "TLS handshakes with clients, by what came of them."
    );
    describe_counter!("ticketd_accepted_total", "Tickets answered 202.");
    describe_counter!(
        "ticketd_rejected_total",
        "Tickets not answered 202, by reason."
    );
    describe_counter!(
        "ticketd_source_accepted_total",
        "Tickets answered 202, by source."
    );
    describe_counter!(
        "ticketd_source_rejected_total",
        "Tickets of a known source not answered 202, by source."
    );
    describe_gauge!(
        "ticketd_last_ticket_timestamp_seconds",
        "When the last ticket was answered 202, by source, and without one of all; 0 while none was."
    );
}

fn publishing() {
    describe_counter!("ticketd_publish_groups_total", "Messages published.");
    describe_histogram!("ticketd_publish_group_size", "Tickets in one message.");
    describe_histogram!(
        "ticketd_publish_confirm_seconds",
        "From a message's publishing to its confirm."
    );
    describe_counter!(
        "ticketd_publish_failed_total",
        "Messages not confirmed, by reason."
    );
    describe_gauge!("ticketd_inflight", "Tickets between arrival and confirm.");
    describe_gauge!("ticketd_amqp_blocked", "Links that RabbitMQ has blocked.");
}

fn storing() {
    describe_counter!("ticketd_stored_total", "Tickets committed, by result.");
    describe_histogram!("ticketd_batch_rows", "Tickets in one transaction.");
    describe_histogram!("ticketd_flush_seconds", "The stages of storing one batch.");
    describe_counter!(
        "ticketd_flush_failed_total",
        "Attempts to store a batch that failed and were repeated, by reason."
    );
    describe_histogram!(
        "ticketd_end_to_end_seconds",
        "From a ticket's arrival to its commit."
    );
    describe_gauge!(
        "ticketd_queue_messages",
        "Messages that wait in RabbitMQ and are with no consumer, by queue; NaN while that is not known."
    );
    describe_gauge!(
        "ticketd_pg_connected",
        "Connections to PostgreSQL that can store tickets."
    );
    describe_gauge!(
        "ticketd_pg_refusing",
        "Tickets held because the tables in PostgreSQL refuse them and take no other."
    );
    describe_gauge!(
        "ticketd_backlog_age_seconds",
        "Since the oldest ticket was received that was delivered and is not stored, 0 while there is none; NaN while that is not known."
    );
    describe_gauge!(
        "ticketd_partitions_ahead_seconds",
        "For how long from now on there are partitions of tickets; NaN where it has none of ticketd's making."
    );
    describe_gauge!(
        "ticketd_dead_tickets",
        "Rows of dead_tickets, 10000 at most; NaN while that is not known."
    );
}

fn process() {
    describe_gauge!(
        "ticketd_amqp_connected",
        "Links to RabbitMQ that are up, by role."
    );
    describe_gauge!(
        "ticketd_build_info",
        "1, with version and revision as labels."
    );
    describe_gauge!("ticketd_draining", "1 from the start of a shutdown on.");
}
