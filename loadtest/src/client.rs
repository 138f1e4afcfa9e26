//! One worker of the load generator: an epoll loop over its share of the connections.
//!
//! Each connection has at most one request outstanding. In a closed loop an answer is followed at once
//! by the next request. In an open loop requests fall due at a fixed rate whether or not answers come, and
//! latency counts from the due time: a stalled server is charged for every request it held up. It looks at its
//! connections twice a millisecond: to be woken for every answer and every due time would take from the machine what
//! the servers on it need. That adds to the latencies, and never takes from them.

mod connection;
mod stream;

use std::collections::VecDeque;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{Timespec, epoll};

use self::connection::{Connection, State, WRITABLE, open, watch, would_block};
pub(crate) use self::stream::{Endpoint, Stream};
use crate::requests::Requests;
use crate::response::{self, Answer, Parsed};
use crate::tally::Tally;

/// How often time-outs are looked for and broken connections opened again.
const TICK_NANOS: u64 = 20_000_000;

/// How often an open loop looks at its connections.
const OPEN_LOOP_NANOS: u64 = 500_000;

/// Room for any answer that ticketd gives.
const READ_BYTES: usize = 16 * 1024;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 512;

/// One worker's share of the load.
pub(crate) struct Share {
    /// Where the server listens.
    pub(crate) endpoint: Endpoint,
    /// Connections of this worker.
    pub(crate) connections: usize,
    /// When requests fall due at this worker; none for a closed loop.
    pub(crate) schedule: Option<Schedule>,
    /// When the last request may be sent.
    pub(crate) end_nanos: u64,
    /// Requests due before this have no part in the latencies.
    pub(crate) warmup_nanos: u64,
    /// How many requests may be sent.
    pub(crate) tickets_max: u64,
    /// How long an answer may take.
    pub(crate) timeout_nanos: u64,
}

/// The arrivals of an open loop, evenly spaced.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// When the next request is due is worked out from the start each time, so that no rounding adds up.
    pub(crate) first_nanos: f64,
    /// Nanoseconds between two arrivals.
    pub(crate) interval_nanos: f64,
    /// Requests sent so far.
    pub(crate) sent: u64,
}

impl Schedule {
    fn next_due_nanos(&self) -> u64 {
        (self.first_nanos + self.interval_nanos * self.sent as f64) as u64
    }

    /// Requests due before the end that were not sent.
    fn unsent(&self, end_nanos: u64) -> u64 {
        let left_nanos = end_nanos.saturating_sub(self.next_due_nanos());
        (left_nanos as f64 / self.interval_nanos).ceil() as u64
    }
}

/// The loop and all that it owns.
pub(crate) struct Worker<'a> {
    share: Share,
    requests: Requests,
    accepted_live: &'a AtomicU64,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    waiting: usize,
    next_tick_nanos: u64,
    started: Instant,
    tally: Tally,
    buffer: Box<[u8; READ_BYTES]>,
}

#[expect(
    clippy::indexing_slicing,
    reason = "a connection's index is its place for the whole run, and what was read or written lies in its buffer"
)]
impl<'a> Worker<'a> {
    /// Opens all connections; nothing is sent yet.
    pub(crate) fn connect(
        share: Share,
        requests: Requests,
        accepted_live: &'a AtomicU64,
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connections = (0..share.connections)
            .map(|index| open(&share.endpoint, &epoll, index))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(|| format!("cannot connect to {}", share.endpoint.address()))?;
        Ok(Self {
            next_tick_nanos: TICK_NANOS,
            share,
            requests,
            accepted_live,
            epoll,
            connections,
            idle: VecDeque::new(),
            waiting: 0,
            started: Instant::now(),
            tally: Tally::new()?,
            buffer: Box::new([0; READ_BYTES]),
        })
    }

    /// Sends from the moment that all workers are ready until the end, then waits for the last answers.
    pub(crate) fn run(mut self, ready: &Barrier) -> Result<Tally> {
        ready.wait();
        self.started = Instant::now();
        for index in 0..self.connections.len() {
            self.proceed(index, 0);
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while !self.finished() {
            let accepted_before = self.tally.accepted;
            if self.share.schedule.is_some() {
                self.sleep_to_next_look();
            }
            let timeout = self.wait_at_most();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let index = event.data.u64() as usize;
                self.on_ready(index, event.flags);
            }
            self.send_due();
            self.tick();
            self.accepted_live
                .fetch_add(self.tally.accepted - accepted_before, Ordering::Relaxed);
        }
        self.settle();
        Ok(self.tally)
    }

    fn now_nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn may_send(&self, now_nanos: u64) -> bool {
        now_nanos < self.share.end_nanos && self.tally.sent < self.share.tickets_max
    }

    fn finished(&self) -> bool {
        let now_nanos = self.now_nanos();
        !self.may_send(now_nanos)
            && (self.waiting == 0 || now_nanos >= self.share.end_nanos + self.share.timeout_nanos)
    }

    fn sleep_to_next_look(&self) {
        let nanos = OPEN_LOOP_NANOS - self.now_nanos() % OPEN_LOOP_NANOS;
        thread::sleep(Duration::from_nanos(nanos));
    }

    /// The time until the loop must look again without having been woken by a socket; an open loop has waited already.
    fn wait_at_most(&self) -> Timespec {
        let until_nanos = match self.share.schedule {
            Some(_) => 0,
            None => self.next_tick_nanos,
        };
        let nanos = until_nanos.saturating_sub(self.now_nanos());
        Timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        }
    }

    fn on_ready(&mut self, index: usize, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.send_rest(index);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            self.receive(index);
        }
    }

    /// Gives an open connection its next request in a closed loop, or to the idle ones in an open loop.
    fn proceed(&mut self, index: usize, now_nanos: u64) {
        self.connections[index].state = State::Idle;
        if self.share.schedule.is_some() {
            self.idle.push_back(index);
        } else if self.may_send(now_nanos) {
            self.send(index, now_nanos);
        }
    }

    /// In an open loop, sends what has fallen due, as far as connections are free.
    fn send_due(&mut self) {
        let now_nanos = self.now_nanos();
        // What fell due just before the end is still sent, although the loop wakes after it.
        if now_nanos > self.share.end_nanos + TICK_NANOS {
            return;
        }
        while let Some(schedule) = &mut self.share.schedule {
            let due_nanos = schedule.next_due_nanos();
            if due_nanos > now_nanos || due_nanos >= self.share.end_nanos {
                return;
            }
            let Some(index) = self.idle.pop_front() else {
                return;
            };
            // A connection may have broken since it became idle.
            if matches!(self.connections[index].state, State::Idle) {
                schedule.sent += 1;
                self.send(index, due_nanos);
            }
        }
    }

    fn send(&mut self, index: usize, due_nanos: u64) {
        let (number, request) = self.requests.next();
        let connection = &mut self.connections[index];
        connection.state = State::Waiting { number, due_nanos };
        self.waiting += 1;
        self.tally.sent += 1;
        match connection.send(request) {
            Ok(true) => {}
            Ok(false) => {
                let _watched = watch(&self.epoll, connection, index, WRITABLE);
            }
            Err(_) => self.fail(index, "write"),
        }
    }

    fn send_rest(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        match connection.send_rest() {
            Ok(true) => {
                let _watched = watch(&self.epoll, connection, index, epoll::EventFlags::IN);
            }
            Ok(false) => {}
            Err(_) => self.fail(index, "write"),
        }
    }

    fn receive(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let length = match connection.stream.read(&mut self.buffer[..]) {
            Ok(0) if matches!(connection.state, State::Idle) => return self.reopen(index),
            Ok(0) => return self.fail(index, "closed"),
            Ok(length) => length,
            Err(error) if would_block(&error) => return,
            Err(_) => return self.fail(index, "read"),
        };
        let received = &self.buffer[..length];
        let parsed = if connection.inbox.is_empty() {
            response::parse(received)
        } else {
            connection.inbox.extend_from_slice(received);
            response::parse(&connection.inbox)
        };
        match parsed {
            Parsed::Complete(answer) => self.answered(index, &answer),
            Parsed::Malformed => self.fail(index, "malformed answer"),
            Parsed::Partial if connection.inbox.is_empty() => {
                connection.inbox.extend_from_slice(received);
            }
            Parsed::Partial => {}
        }
    }

    fn answered(&mut self, index: usize, answer: &Answer) {
        let connection = &mut self.connections[index];
        connection.inbox.clear();
        let State::Waiting { number, due_nanos } = connection.state else {
            return self.fail(index, "unasked answer");
        };
        let now_nanos = self.now_nanos();
        self.waiting -= 1;
        let latency_nanos =
            (due_nanos >= self.share.warmup_nanos).then(|| now_nanos.saturating_sub(due_nanos));
        self.tally
            .answered(answer.status, number, latency_nanos, now_nanos);
        self.connections[index].state = State::Idle;
        if answer.close {
            self.reopen(index);
        } else {
            self.proceed(index, now_nanos);
        }
    }

    /// Gives a connection up, and with it the ticket whose answer it owed.
    fn fail(&mut self, index: usize, kind: &'static str) {
        self.tally.failed(kind);
        let connection = &mut self.connections[index];
        if let State::Waiting { number, .. } = connection.state {
            self.waiting -= 1;
            self.tally.doubtful.push(number);
        }
        connection.state = State::Broken;
        // What is readable for ever would wake the loop for ever.
        let _removed = epoll::delete(&self.epoll, connection.stream.socket());
        let _closed = connection.stream.socket().shutdown(Shutdown::Both);
    }

    /// Replaces a connection; one that cannot be opened is tried again at the next tick.
    fn reopen(&mut self, index: usize) {
        match open(&self.share.endpoint, &self.epoll, index) {
            Ok(connection) => {
                let was_idle = matches!(self.connections[index].state, State::Idle);
                self.connections[index] = connection;
                // An idle connection of an open loop may still stand in the queue of the idle.
                if !(was_idle && self.idle.contains(&index)) {
                    self.proceed(index, self.now_nanos());
                }
            }
            Err(_) => self.fail(index, "connect"),
        }
    }

    /// Fails the requests that were not answered in time and opens broken connections again.
    fn tick(&mut self) {
        let now_nanos = self.now_nanos();
        if now_nanos < self.next_tick_nanos {
            return;
        }
        self.next_tick_nanos = now_nanos + TICK_NANOS;
        for index in 0..self.connections.len() {
            match self.connections[index].state {
                State::Waiting { due_nanos, .. }
                    if now_nanos.saturating_sub(due_nanos) > self.share.timeout_nanos =>
                {
                    self.fail(index, "time-out");
                }
                State::Broken if self.may_send(now_nanos) => self.reopen(index),
                _ => {}
            }
        }
    }

    /// Books what never came: answers that are still owed, and arrivals that found no free connection.
    fn settle(&mut self) {
        for index in 0..self.connections.len() {
            if matches!(self.connections[index].state, State::Waiting { .. }) {
                self.fail(index, "time-out");
            }
        }
        if let Some(schedule) = &self.share.schedule {
            self.tally.unsent = schedule.unsent(self.share.end_nanos);
        }
    }
}
