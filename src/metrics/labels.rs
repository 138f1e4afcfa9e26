//! The values of labels, as enums.

/// A label as an enum: every value is registered at start, so that its first
/// increase is seen, and a value that is added cannot miss its counter.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of their numbers.
            #[allow(dead_code, reason = "where each value's series is made by whoever has it")]
            pub(crate) const ALL: &[Self] = &[$(Self::$value,)+];

            /// The value as it stands in the metric.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

label! {
    /// Why a ticket is not answered 202.
    Rejected {
        /// Its body is not in the coding that its head says.
        BadEncoding = "bad_encoding",
        /// Its Ticket-Issued-At is no time.
        BadIssuedAt = "bad_issued_at",
        /// Its Idempotency-Key is none.
        BadKey = "bad_key",
        /// Its body ended early.
        BrokenBody = "broken_body",
        /// RabbitMQ is unavailable.
        BrokerAway = "broker_away",
        /// RabbitMQ accepts no messages.
        BrokerBlocked = "broker_blocked",
        /// Its body is said to be in a charset that is not read.
        Charset = "charset",
        /// RabbitMQ did not confirm it in time.
        ConfirmTimeout = "confirm_timeout",
        /// Its body is said to be compressed in a way that is not read.
        ContentEncoding = "content_encoding",
        /// A body of many tickets is of no type that is read.
        ContentType = "content_type",
        /// The process is shutting down.
        Draining = "draining",
        /// A body of many tickets cannot be cut into them.
        Malformed = "malformed",
        /// RabbitMQ refused it.
        Nack = "nack",
        /// Its sender's certificate names no source.
        NoSource = "no_source",
        /// It is not text that PostgreSQL can store.
        NotText = "not_text",
        /// Too many tickets are waiting.
        Overloaded = "overloaded",
        /// Its source is over its limit.
        RateLimited = "rate_limited",
        /// RabbitMQ had no queue for it.
        Returned = "returned",
        /// Its body is too large.
        TooLarge = "too_large",
        /// Its body did not arrive in time.
        TooSlow = "too_slow",
        /// Nothing proves who sends it.
        Unauthorized = "unauthorized",
    }
}

label! {
    /// Which route a response is of.
    RouteLabel {
        /// POST /ticket.
        Ticket = "/ticket",
        /// GET /ticket/{id}.
        TicketState = "/ticket/{id}",
        /// POST /tickets.
        Tickets = "POST /tickets",
        /// GET /tickets.
        TicketList = "/tickets",
        /// GET /.
        Page = "/",
        /// POST /check.
        CheckTicket = "/check",
        /// GET /openapi.json.
        OpenApi = "/openapi.json",
        /// GET /metrics.
        Metrics = "/metrics",
        /// GET /livez.
        Live = "/livez",
        /// GET /readyz, by either of its names.
        Ready = "/readyz",
        /// GET /version.
        Version = "/version",
        /// None: there is no such path, it does not take the method, or it was no whole request.
        Other = "other",
    }
}

label! {
    /// Why a message is not confirmed.
    PublishFailed {
        /// The connection or the channel ended first.
        Closed = "closed",
        /// RabbitMQ refused it.
        Nack = "nack",
        /// RabbitMQ had no queue for it.
        Returned = "returned",
        /// No confirm came in time.
        Timeout = "timeout",
    }
}

label! {
    /// What came of a TLS handshake with a client.
    Handshake {
        /// The connection is encrypted.
        Done = "done",
        /// A newcomer had its place.
        Displaced = "displaced",
        /// One of both sides ended it.
        Failed = "failed",
        /// It took too long.
        Timeout = "timeout",
    }
}

label! {
    /// Why a batch, or a part of one, is stored again.
    FlushFailed {
        /// The connection or the server failed.
        Unavailable = "away",
        /// A ticket of the batch is stored already.
        Conflict = "conflict",
        /// PostgreSQL refuses a row.
        Data = "data",
        /// PostgreSQL took too long.
        Timeout = "late",
        /// Tickets are held, because the tables take no other either.
        Refused = "refused",
        /// The tables are not as they should be.
        Schema = "schema",
    }
}

label! {
    /// The queues whose messages are counted.
    QueueLabel {
        /// Tickets wait in it to be stored.
        Main = "main",
        /// Tickets wait in it when the main queue could not be reached.
        Unrouted = "unrouted",
        /// What RabbitMQ gave up delivering.
        Dead = "dead",
    }
}
