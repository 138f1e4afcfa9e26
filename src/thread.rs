//! A part of the process on a thread of its own, with a runtime of its own.

use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Runs a part to its end, which the receiver learns: as an error if the part
/// panicked. Fails where no more threads or files can be had.
pub(crate) fn run_on_thread<F>(name: &str, part: F) -> std::io::Result<oneshot::Receiver<()>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            runtime.block_on(part);
            let _unheard = end.send(());
        })?;
    Ok(ended)
}
