//! A PostgreSQL of one test's own, with a synchronous standby.

use std::path::PathBuf;

use tokio_postgres::Client;

use crate::stack::{StackLease, number};
use ticketd_testing::servers::connect;
use ticketd_testing::{proc, wait_for, wait_until};

const WAITING: &str = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";

/// Both servers.
pub(crate) struct Pair {
    place: PathBuf,
    first: Server,
    second: Server,
}

#[derive(Clone, Copy)]
struct Server {
    pid: u32,
    port: u16,
}

impl Pair {
    /// Starts both, without data.
    pub(crate) fn start(stack: &StackLease) -> Self {
        let place = stack.dir().join("pair");
        stack.run_in(&place, &["wipe"]);
        stack.run_in(&place, &["up", "standby"]);
        let status = stack.command(&place, &["status"]).output().unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        let server = |name| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            let (pid, port) = (number(line, "pid="), number(line, "port="));
            Server { pid, port }
        };
        Self {
            first: server("postgres "),
            second: server("standby "),
            place,
        }
    }

    /// The URL that names both.
    pub(crate) fn url(&self) -> String {
        let (first, second) = (self.first.port, self.second.port);
        format!("postgres://ticketd@127.0.0.1:{first},127.0.0.1:{second}/ticketd?sslmode=disable")
    }

    /// The first server is no longer copied to the standby, whatever becomes of either.
    pub(crate) async fn cut_off(&self) {
        let standby = self.second.session().await;
        for statement in [
            "alter system set primary_conninfo = ''",
            "select pg_reload_conf()",
        ] {
            standby.batch_execute(statement).await.unwrap();
        }
        let first = self.first.session().await;
        let connected = "select count(*) from pg_stat_replication";
        wait_until("no standby", async || count(&first, connected).await == 0).await;
    }

    /// The standby is there again.
    pub(crate) async fn join(&self) {
        let standby = self.second.session().await;
        for statement in [
            "alter system reset primary_conninfo",
            "select pg_reload_conf()",
        ] {
            standby.batch_execute(statement).await.unwrap();
        }
    }

    /// Waits until a COMMIT waits for the standby.
    pub(crate) async fn a_commit_waits(&self) {
        let first = self.first.session().await;
        wait_until("a COMMIT that waits", async || {
            count(&first, WAITING).await > 0
        })
        .await;
    }

    /// Ends each such wait by this function; returns how many there were.
    pub(crate) async fn end_waits(&self, function: &str) -> i64 {
        let first = self.first.session().await;
        let ended = format!(
            "select count({function}(pid)) from pg_stat_activity where wait_event = 'SyncRep'"
        );
        count(&first, &ended).await
    }

    /// Kills one backend that waits, for which the first server ends all others, and recovers.
    pub(crate) async fn crash(&self) {
        let first = self.first.session().await;
        let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep' limit 1";
        let pid: i32 = first.query_one(waiting, &[]).await.unwrap().get(0);
        ticketd_testing::signal("KILL", &[u32::try_from(pid).unwrap()]);
        wait_until("the crash", async || {
            first.simple_query("select").await.is_err()
        })
        .await;
        self.first.session().await;
    }

    /// Sends a signal to all processes of the first server; waits for their end where it kills.
    pub(crate) async fn signal_first(&self, signal: &str) {
        ticketd_testing::signal(signal, &proc::family(self.first.pid));
        if signal == "KILL" {
            wait_until("its end", async || !proc::is_alive(self.first.pid)).await;
        }
    }

    /// Has the standby take writes.
    pub(crate) fn promote(&self, stack: &StackLease) {
        stack.run_in(&self.place, &["promote"]);
    }

    /// The same while the first server is there, but hangs.
    pub(crate) async fn promote_beside_first(&self) {
        let standby = self.standby().await;
        standby.batch_execute("select pg_promote()").await.unwrap();
    }

    /// A session on the standby.
    pub(crate) async fn standby(&self) -> Client {
        self.second.session().await
    }

    /// Tickets that the standby has.
    pub(crate) async fn rows(&self) -> i64 {
        let standby = self.standby().await;
        let tables = "select count(*) from pg_class where relname = 'tickets'";
        match count(&standby, tables).await {
            0 => 0,
            _ => count(&standby, "select count(*) from tickets").await,
        }
    }

    /// Stops both, and deletes their data.
    pub(crate) fn wipe(&self, stack: &StackLease) {
        stack.run_in(&self.place, &["wipe"]);
    }
}

impl Server {
    async fn session(self) -> Client {
        let port = self.port;
        let url = format!("postgres://ticketd@127.0.0.1:{port}/ticketd?sslmode=disable");
        wait_for("a session", async || connect(&url).await.ok()).await
    }
}

async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}
