//! Being told to stop.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Fires the returned token at the first SIGINT or SIGTERM; at the second the process ends at once.
pub(crate) fn stop_on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let fired = stop.clone();
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if fired.is_cancelled() {
                std::process::exit(code);
            }
            fired.cancel();
            // Terminals and supervisors may send both signals for one wish.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    Ok(stop)
}

/// Ends at Ctrl-C; never when it can't be listened for.
pub(crate) async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
