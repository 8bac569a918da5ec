//! Input that is wrong, through a server of its own: each gets an error that names the place and the remedy, or is
//! counted; the server goes on, and what was acknowledged stays.
//!
//! Every test prints a line for each input with the message it got:
//! `cargo test --workspace --test bad_input -- --nocapture | grep '^bad input'`.

mod disk;
mod documents;
mod files;
mod messages;
mod start;
mod stored;

use std::path::Path;
use strandline_tests::client::Client;
use strandline_tests::process::Process;
use strandline_tests::refusal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_strandline-under-test");
const ALL: &str = "SELECT count(*) FROM facts";

async fn server(data: &Path) -> (Process, Client) {
    refusal::server(PROGRAM, data).await
}
