//! `strandline append`: lines of standard input become messages of the embedded log.

use super::client::{Connection, ServerArgs, refused};
use super::{Failure, Outcome};
use std::io::{BufRead as _, Write as _};
use strandline_proto::Error;
use strandline_proto::v1::{AppendRequest, Message};
use tokio::sync::mpsc;

/// Messages of one request.
const MESSAGES_MAX: usize = 4096;
/// Bytes of one request's messages.
const BYTES_MAX: usize = 4 << 20;
/// Lines read ahead of the server.
const LINES_WAITING_MAX: usize = 8192;

/// Arguments of `strandline append`.
#[derive(Debug, clap::Args)]
pub struct AppendArgs {
    /// Topic of the embedded log; a realtime table that reads it must be there.
    topic: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Partition; without it the producer id decides, or the partitions take turns.
    #[arg(long)]
    partition: Option<u32>,
    /// Name of this producer: repeating the same lines under it stores nothing twice.
    #[arg(long, value_name = "ID")]
    producer_id: Option<String>,
    /// Number of the first line among all that the producer ever sent.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "producer_id")]
    sequence: u64,
}

/// Runs the command.
pub(crate) async fn run(arguments: AppendArgs) -> Outcome {
    let mut ingest = Connection::open(&arguments.server.server).await?.ingest();
    let (sender, mut lines) = mpsc::channel(LINES_WAITING_MAX);
    // Reading blocks, so it has a thread; what is there already is sent together, what trickles in at once.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let (mut stored, mut duplicates) = (0, 0);
    let mut sequence = arguments.sequence;
    let mut waiting = Vec::with_capacity(MESSAGES_MAX);
    while lines.recv_many(&mut waiting, MESSAGES_MAX).await > 0 {
        let mut messages = Vec::with_capacity(waiting.len());
        let mut bytes = 0;
        let mut requests = Vec::new();
        for line in waiting.drain(..) {
            let mut line = line.map_err(|error| {
                Failure::Usage(Error::invalid(format!("standard input: {error}")))
            })?;
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if bytes + line.len() > BYTES_MAX && !messages.is_empty() {
                requests.push(std::mem::take(&mut messages));
                bytes = 0;
            }
            bytes += line.len();
            messages.push(Message {
                payload: line.into(),
                ..Message::default()
            });
        }
        requests.push(messages);
        for messages in requests.into_iter().filter(|messages| !messages.is_empty()) {
            let count = messages.len() as u64;
            let request = AppendRequest {
                topic: arguments.topic.clone(),
                partition: arguments.partition,
                messages,
                producer_id: arguments.producer_id.clone().unwrap_or_default(),
                first_sequence: sequence,
            };
            let response = ingest.append(request).await.map_err(|status| {
                eprintln!(
                    "{} lines were stored before this error",
                    stored + duplicates
                );
                refused(&status)
            })?;
            let response = response.into_inner();
            sequence += count;
            duplicates += response.duplicates;
            stored += count.saturating_sub(response.duplicates);
        }
    }
    writeln!(
        std::io::stdout(),
        "appended {stored} messages to {}; {duplicates} were there already",
        arguments.topic
    )?;
    Ok(())
}
