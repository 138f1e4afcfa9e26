//! A run: workers on their threads, the progress bar, and what is measured around them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Endpoint, Schedule, Share, Worker};
use crate::proc::{Costs, Part};
use crate::report::Report;
use crate::requests::Requests;
use crate::signing::{self, Signer};
use crate::stored::Counter;
use crate::tally::Tally;
use crate::tickets::{self, Mix, Proof, Target};

/// How often the bar moves, and how often memory and the table are looked at during the load.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// What `run` is told on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to send the tickets.
    #[arg(long, default_value = "http://127.0.0.1:8080/ticket")]
    url: String,
    #[command(flatten)]
    sender: Sender,
    /// Keep-alive connections, each with at most one request outstanding.
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How long to send: 500ms, 10s, 5m.
    #[arg(long, short, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Requests per second to send, regardless of the answers (open loop) [default: as fast as answers
    /// come (closed loop)].
    #[arg(long, short, value_parser = rate)]
    rate: Option<f64>,
    /// Exclude the requests of this first period from the latencies; they count everywhere else.
    #[arg(long, default_value = "0s", value_parser = duration)]
    warmup: Duration,
    /// Stop after this many requests, or when the duration is over.
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..))]
    tickets: Option<u64>,
    /// Threads of the load generator.
    #[arg(long, short, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// Maximum wait for an answer.
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    mix: Mix,
    /// Database to count the stored tickets in; without it lost tickets go unnoticed.
    #[arg(long)]
    database: Option<String>,
    /// Table to count them in.
    #[arg(long, default_value = "tickets")]
    table: String,
    /// How long to wait without a new row before missing tickets count as lost.
    #[arg(long, default_value = "60s", value_parser = duration)]
    drain: Duration,
    /// Process tree whose CPU time and memory to report; may be given several times.
    #[arg(long = "pid", value_name = "NAME=PID")]
    parts: Vec<Part>,
    /// File to write the figures to, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How the requests are protected, and prove who sends them.
#[derive(clap::Args)]
struct Sender {
    /// File with the CA of an https:// server.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Give every ticket an Idempotency-Key.
    #[arg(long, group = "proof")]
    keys: bool,
    /// Bearer token to send.
    #[arg(long, group = "proof")]
    bearer: Option<String>,
    /// Secret (whsec_…) to sign with as Standard Webhooks say; as much as can be foreseen is signed before the start.
    #[arg(long, group = "proof")]
    webhook_secret: Option<String>,
}

impl Sender {
    fn proof(&self, signer: Option<&Signer>) -> Proof {
        match (signer, &self.bearer) {
            (Some(signer), _) => Proof::Signature(signer.timestamp().to_owned()),
            (None, Some(token)) => Proof::Token(token.clone()),
            (None, None) if self.keys => Proof::Key,
            (None, None) => Proof::None,
        }
    }

    fn signer(&self, duration: Duration) -> Result<Option<Signer>> {
        let Some(secret) = &self.webhook_secret else {
            return Ok(None);
        };
        let longest = signing::RUN_MAX;
        ensure!(
            duration <= longest,
            "signatures are not taken for longer than {} s",
            longest.as_secs()
        );
        Signer::new(secret).map(Some)
    }
}

/// Runs the load and reports it; false when a ticket was lost or stored twice.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!(
        options.warmup < options.duration,
        "--warmup takes all of --duration"
    );
    let signer = options.sender.signer(options.duration)?;
    let (endpoint, host, path) = endpoint(&options.url, options.sender.ca.as_deref())?;
    let target = Target {
        host,
        path,
        proof: options.sender.proof(signer.as_ref()),
    };
    let prefix = run_prefix()?;
    let mut counter = match &options.database {
        Some(url) => Some(Counter::begin(url, &options.table, &prefix)?),
        None => None,
    };
    let accepted_live = AtomicU64::new(0);
    let shares = shares(options, &endpoint);
    let numbers = shares.len() as u64;
    let workers = (0..numbers)
        .zip(shares)
        .map(|(first, share)| {
            let templates = tickets::templates(&options.mix, &prefix, &target);
            let mut requests = Requests::new(templates, (first, numbers), signer.clone());
            requests.sign_ahead(signing::ahead(options.duration) / numbers as usize);
            Worker::connect(share, requests, &accepted_live)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut costs = Costs::begin(&options.parts)?;
    let started = Instant::now();
    let tally = load(options, workers, &accepted_live, || {
        costs.sample();
        counter.as_ref().map(Counter::ids_so_far).transpose()
    })?;
    let tally = tally.of_tickets(u64::from(options.mix.bulk));
    let load_ended = started + Duration::from_nanos(tally.last_answer_nanos);
    let stored_at = match &mut counter {
        Some(counter) => counter.wait_for(&tally, options.drain)?,
        None => None,
    };
    let costs = costs.end();
    let stored = match &counter {
        Some(counter) => Some(counter.verify(&tally)?),
        None => None,
    };
    let report = Report {
        connections: options.connections,
        rate_wanted: options.rate,
        tally,
        stored,
        drain_seconds: stored_at.map(|at| at.saturating_duration_since(load_ended).as_secs_f64()),
        stored_seconds: stored_at
            .map(|at| at.max(load_ended).duration_since(started).as_secs_f64()),
        costs,
    };
    report.print();
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.is_sound())
}

/// Lets the workers send while the bar moves; `sample` is called about once a second.
fn load(
    options: &Options,
    workers: Vec<Worker<'_>>,
    accepted_live: &AtomicU64,
    mut sample: impl FnMut() -> Result<Option<i64>>,
) -> Result<Tally> {
    let ready = Barrier::new(workers.len());
    thread::scope(|scope| {
        let handles: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(|| worker.run(&ready)))
            .collect();
        let bar = progress_bar(options.duration);
        let mut next_sample = Instant::now();
        let mut stored = None;
        while !handles.iter().all(thread::ScopedJoinHandle::is_finished) {
            if Instant::now() >= next_sample {
                stored = sample()?;
                next_sample = Instant::now() + SAMPLE_INTERVAL;
            }
            bar.set_position(bar.elapsed().as_millis() as u64);
            let accepted = accepted_live.load(Ordering::Relaxed) * u64::from(options.mix.bulk);
            bar.set_message(message(accepted, stored));
            thread::sleep(BAR_INTERVAL);
        }
        bar.finish_and_clear();
        let mut total = Tally::new()?;
        for handle in handles {
            total.add(&handle.join().map_err(|_| anyhow!("a worker panicked"))??)?;
        }
        Ok(total)
    })
}

fn progress_bar(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn message(accepted: u64, stored: Option<i64>) -> String {
    match stored {
        Some(stored) => format!("{accepted} accepted, {stored} stored"),
        None => format!("{accepted} accepted"),
    }
}

/// Splits the connections and the rate over the threads; no thread goes without a connection.
fn shares(options: &Options, endpoint: &Endpoint) -> Vec<Share> {
    let threads = options.threads.min(options.connections);
    let schedule = |thread: u32, rate: f64| Schedule {
        first_nanos: 1e9 / rate * f64::from(thread),
        interval_nanos: 1e9 / rate * f64::from(threads),
        sent: 0,
    };
    (0..threads)
        .map(|thread| Share {
            endpoint: endpoint.clone(),
            connections: (options.connections / threads
                + u32::from(thread < options.connections % threads))
                as usize,
            schedule: options.rate.map(|rate| schedule(thread, rate)),
            end_nanos: options.duration.as_nanos() as u64,
            warmup_nanos: options.warmup.as_nanos() as u64,
            tickets_max: options.tickets.map_or(u64::MAX, |tickets| {
                let (threads, thread) = (u64::from(threads), u64::from(thread));
                tickets / threads + u64::from(thread < tickets % threads)
            }),
            timeout_nanos: options.timeout.as_nanos() as u64,
        })
        .collect()
}

/// A URL's server, Host header and path.
fn endpoint(url: &str, ca: Option<&Path>) -> Result<(Endpoint, String, String)> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match (authority.rsplit_once(':'), scheme) {
        (Some((host, port)), _) => (host, port.parse()?),
        (None, "https") => (authority, 443),
        (None, _) => (authority, 80),
    };
    let address = address(host, port)?;
    let endpoint = match (scheme, ca) {
        ("http", None) => Endpoint::plain(address),
        ("https", Some(ca)) => Endpoint::encrypted(address, host, ca)?,
        ("https", None) => bail!("https:// takes --ca"),
        ("http", Some(_)) => bail!("--ca takes https://"),
        _ => bail!("the URL must begin with http:// or https://"),
    };
    Ok((endpoint, authority.to_owned(), format!("/{path}")))
}

fn address(host: &str, port: u16) -> Result<SocketAddr> {
    let mut addresses = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    addresses
        .next()
        .with_context(|| format!("{host} has no address"))
}

/// Starts the order ids of this run and of no other.
fn run_prefix() -> Result<String> {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    Ok(format!("L{micros:x}-"))
}

fn rate(text: &str) -> Result<f64> {
    let rate = text.parse()?;
    ensure!((0.001..1e9).contains(&rate), "{text} is out of range");
    Ok(rate)
}

fn duration(text: &str) -> Result<Duration> {
    let unit_at = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(anyhow!("unknown unit {unit}: use ms, s or m")),
    };
    let seconds = number.parse::<f64>()? * unit_seconds;
    ensure!((0.0..1e6).contains(&seconds), "{text} is out of range");
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for text in ["", "s", "-1s", "1h", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_is_split_into_server_host_and_path() {
        let split = |url| endpoint(url, None).unwrap();
        let (server, host, path) = split("http://127.0.0.1:8080/ticket?source=a");
        assert_eq!(
            (host.as_str(), path.as_str()),
            ("127.0.0.1:8080", "/ticket?source=a")
        );
        assert_eq!(server.address(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(split("http://127.0.0.1").0.address().port(), 80);
        for url in [
            "https://127.0.0.1/ticket",
            "127.0.0.1/ticket",
            "ftp://127.0.0.1/",
        ] {
            assert!(endpoint(url, None).is_err(), "{url}");
        }
        assert!(endpoint("http://127.0.0.1", Some(Path::new("ca.pem"))).is_err());
    }
}
