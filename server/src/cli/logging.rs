//! Structured logs on standard error.

use serde::Deserialize;
use std::io::IsTerminal as _;
use strandline_proto::{Error, Result};
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the store of keys says of its files is for its developers, unless the filter names it.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Starts logging with a filter such as `info` or `strandline_server=debug,warn`.
pub(crate) fn init(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| {
        Error::invalid(format!(
            "log filter \"{filter}\": {error}; use a level such as info, or target=level,..."
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A process that logs already (tests) keeps its way.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
