//! A disk of PostgreSQL's that can be filled: a small file system of our own that `tickets` moves
//! to, and away from again once there is room.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::rig::Rig;
use crate::stack::Server;
use ticketd_testing::wait_within;

/// Room beside what `tickets` holds already, for the ballast to take.
const ROOM_MIB: u64 = 8;

/// Maximum wait for the free space within the table's pages to be used up.
const INJECT_DEADLINE: Duration = Duration::from_secs(30);

/// Whether this machine lets us have a file system of our own to fill: root may be without that
/// right in a container, so it is tried.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let name = format!("ticketd-mount-{}", std::process::id());
        let dir = std::env::temp_dir().join(name).display().to_string();
        let script = format!(
            "mkdir {dir} && mount -t tmpfs -o size=1m tmpfs {dir} && umount {dir}; \
             ended=$?; rmdir {dir}; exit $ended"
        );
        let output = Command::new("bash").args(["-c", &script]).output();
        let possible = output.expect("bash starts").status.success();
        if !possible {
            println!("no full disks: this user may not mount a file system to fill");
        }
        possible
    })
}

/// Moves `tickets` to a small disk, fills what is left of it, and waits until a batch was refused.
/// Nothing where that is not possible.
pub(crate) async fn fill(rig: &mut Rig) {
    if !is_possible() {
        return;
    }
    let failed = rig.flush_failures().await;
    let (disk, name) = (disk(rig), &rig.name);
    let pid = rig.stack.pid(Server::Database);
    let sql = rig.stack.session(name).await;
    let size = "select pg_table_size('tickets') / 1048576";
    let size: i64 = sql.query_one(size, &[]).await.unwrap().get(0);
    let mib = size.unsigned_abs() + ROOM_MIB;
    shell(&format!(
        "mkdir -p {disk} && mount -t tmpfs -o size={mib}m,mode=700 tmpfs {disk} && \
         chmod a+x {} && chown --reference=/proc/{pid} {disk} && \
         install -d -o $(stat -c %u /proc/{pid}) -m 700 {disk}/data",
        rig.stack.dir().display(),
        disk = disk.display()
    ));
    let make = format!(
        "create tablespace {name}_disk location '{}/data'",
        disk.display()
    );
    sql.batch_execute(&make).await.unwrap();
    let move_there = format!("alter table tickets set tablespace {name}_disk");
    sql.batch_execute(&move_there).await.unwrap();
    // dd ends when nothing more fits, which is what it is here for.
    shell(&format!(
        "dd if=/dev/zero of={}/ballast bs=64k status=none 2>/dev/null || true",
        disk.display()
    ));
    wait_within("a full disk", INJECT_DEADLINE, async || {
        (rig.flush_failures().await > failed).then_some(())
    })
    .await;
}

/// Makes room, moves `tickets` back, and gives the disk up.
pub(crate) async fn free(rig: &Rig) {
    if !is_possible() {
        return;
    }
    let (disk, name) = (disk(rig).display().to_string(), &rig.name);
    shell(&format!("rm {disk}/ballast"));
    let sql = rig.stack.session(name).await;
    let move_back = "alter table tickets set tablespace pg_default";
    sql.batch_execute(move_back).await.unwrap();
    let drop = format!("drop tablespace {name}_disk");
    sql.batch_execute(&drop).await.unwrap();
    shell(&format!("umount {disk} && rmdir {disk}"));
}

fn disk(rig: &Rig) -> PathBuf {
    rig.stack.dir().join(format!("{}-disk", rig.name))
}

fn shell(script: &str) {
    let output = Command::new("bash")
        .args(["-c", script])
        .output()
        .expect("bash starts");
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
