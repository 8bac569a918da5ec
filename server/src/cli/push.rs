//! `strandline push`: segment files that `strandline build` made, handed to a server.

use super::client::{Connection, ServerArgs, refused};
use super::load::{OptionArgs, finish, progress_bar};
use super::{Failure, Outcome};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::Error;
use strandline_proto::v1::{PushHeader, PushRequest, push_request::Part};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Messages that wait for the network.
const CHUNKS_WAITING_MAX: usize = 8;

/// Arguments of `strandline push`.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// The table.
    table: String,
    /// Segment files made by `strandline build`.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    options: OptionArgs,
}

/// Runs the command.
pub(crate) async fn run(arguments: PushArgs) -> Outcome {
    let options = arguments.options.resolve()?;
    let push_id = options.push_id.clone();
    let started = Instant::now();
    let mut ingest = Connection::open(&arguments.server.server).await?.ingest();
    let bar = progress_bar();
    let sizes = arguments
        .files
        .iter()
        .map(|file| std::fs::metadata(file).map(|metadata| metadata.len()));
    bar.set_length(sizes.filter_map(Result::ok).sum());
    let sent = bar.clone();
    let header = PushHeader {
        table: arguments.table.clone(),
        options: Some(options),
    };
    let (chunks, failed) = stream_files(arguments.files.clone(), move |chunk| {
        let part = match chunk {
            Chunks::File(name) => Part::File(name),
            Chunks::Bytes(bytes) => {
                sent.inc(bytes.len() as u64);
                Part::Chunk(bytes)
            }
        };
        PushRequest { part: Some(part) }
    });
    let first = tokio_stream::once(PushRequest {
        part: Some(Part::Header(header)),
    });
    let outcome = ingest.push(first.chain(chunks)).await;
    bar.finish_and_clear();
    let pushed = match (outcome, failed.take()) {
        (_, Some(error)) => Err(Failure::Usage(error)),
        (Err(status), None) => Err(refused(&status)),
        (Ok(result), None) => Ok(result.into_inner()),
    };
    finish(&arguments.table, &push_id, pushed, started)
}

/// A piece of what is sent.
pub(super) enum Chunks {
    /// A file begins; each gets a name of its own.
    File(String),
    /// Bytes of the file that began last.
    Bytes(Bytes),
}

/// Why reading stopped before the end.
#[derive(Clone, Default)]
pub(super) struct ReadFailure(Arc<Mutex<Option<Error>>>);

impl ReadFailure {
    /// The reason, if there is one.
    pub(super) fn take(&self) -> Option<Error> {
        self.0.lock().take()
    }
}

/// Reads files one after the other and gives their chunks as messages. When a file can't be read the
/// stream ends in a message that the server must refuse, so that half a push is never taken for a whole one.
pub(super) fn stream_files<T: Send + 'static>(
    files: Vec<PathBuf>,
    mut message: impl FnMut(Chunks) -> T + Send + 'static,
) -> (impl Stream<Item = T> + Send + 'static, ReadFailure) {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let failure = ReadFailure::default();
    let noted = failure.clone();
    tokio::task::spawn_blocking(move || {
        let mut send = |chunk| sender.blocking_send(message(chunk)).is_ok();
        if let Err(error) = send_all(&files, &mut send) {
            *noted.0.lock() = Some(error);
            // No server takes a file of this name.
            send(Chunks::File("../unreadable".to_owned()));
        }
    });
    (ReceiverStream::new(receiver), failure)
}

fn send_all(files: &[PathBuf], send: &mut impl FnMut(Chunks) -> bool) -> Result<(), Error> {
    for (number, path) in files.iter().enumerate() {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("file {}: {error}", path.display()))
        };
        let mut file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
        if !send(Chunks::File(unique_name(number, path))) {
            return Ok(());
        }
        loop {
            let mut chunk = Vec::new();
            let read = file
                .by_ref()
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
                .map_err(|error| wrong(&error))?;
            if read == 0 {
                break;
            }
            if !send(Chunks::Bytes(chunk.into())) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The file's name with its number before it: folders may hold files of the same name.
fn unique_name(number: usize, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The end tells the format, so a long name loses its beginning.
    let skip = name.chars().count().saturating_sub(100);
    format!(
        "{number:05}-{}",
        name.chars().skip(skip).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreadable_file_ends_the_stream_in_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("a.csv");
        std::fs::write(&there, "x").unwrap();
        let (stream, failure) = stream_files(
            vec![there, folder.path().join("missing.csv")],
            |chunk| match chunk {
                Chunks::File(name) => name,
                Chunks::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            },
        );
        let all: Vec<String> = stream.collect().await;
        assert_eq!(all, ["00000-a.csv", "x", "../unreadable"]);
        assert!(failure.take().unwrap().message().contains("missing.csv"));
    }
}
