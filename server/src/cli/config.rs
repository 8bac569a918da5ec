//! The server's settings: flag over environment over file over default.
//!
//! All layers are one [`Layer`]; a key that the file has and `Layer` has not is an error that names it.

use super::logging::LogFormat;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use strandline_proto::{Error, Result};

/// The port of HTTP unless another is given.
pub const HTTP_PORT_DEFAULT: u16 = 8099;
/// The port of gRPC unless another is given.
pub const GRPC_PORT_DEFAULT: u16 = 8098;

/// One layer of settings; what it leaves open, the next layer decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Folder that holds everything [env: STRANDLINE_DATA_DIR] [default: strandline-data]
    #[arg(long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// HTTP address or port; port 0 picks a free one [env: STRANDLINE_HTTP] [default: 127.0.0.1:8099]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<Address>,
    /// gRPC address or port; port 0 picks a free one [env: STRANDLINE_GRPC] [default: 127.0.0.1:8098]
    #[arg(long, value_name = "ADDRESS")]
    pub grpc: Option<Address>,
    /// Folder that clients may load from, repeatable [env: STRANDLINE_LOAD_ROOTS, separated by commas] [default: none]
    #[arg(long = "load-root", value_name = "ROOT")]
    pub load_roots: Option<Vec<String>>,
    /// Folder for backups [env: STRANDLINE_BACKUP_ROOT] [default: backups in the data folder]
    #[arg(long = "backup-root", value_name = "DIR")]
    pub backup_root: Option<PathBuf>,
    /// Memory for all queries together, as in 4GiB; consuming segments may take as much again [env: STRANDLINE_MEMORY_BYTES_MAX] [default: a quarter of the machine's]
    #[arg(long, value_name = "BYTES")]
    pub memory_bytes_max: Option<ByteSize>,
    /// Memory for one query [env: STRANDLINE_QUERY_MEMORY_BYTES_MAX] [default: half of memory-bytes-max]
    #[arg(long, value_name = "BYTES")]
    pub query_memory_bytes_max: Option<ByteSize>,
    /// Time for a query that names no limit of its own [env: STRANDLINE_QUERY_TIMEOUT_MS] [default: 60000]
    #[arg(long, value_name = "MS")]
    pub query_timeout_ms: Option<u64>,
    /// Threads that scan segments [env: STRANDLINE_SCAN_THREADS] [default: one a processor]
    #[arg(long, value_name = "N")]
    pub scan_threads: Option<usize>,
    /// Let memory be of huge pages: joins and groups of millions of keys may take a quarter less time, ingestion longer, and all more memory [env: STRANDLINE_HUGE_PAGES] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub huge_pages: Option<bool>,
    /// Largest upload [env: STRANDLINE_UPLOAD_BYTES_MAX] [default: 16GiB]
    #[arg(long, value_name = "BYTES")]
    pub upload_bytes_max: Option<ByteSize>,
    /// How long open requests may go on after SIGTERM [env: STRANDLINE_DRAIN_MS] [default: 10000]
    #[arg(long, value_name = "MS")]
    pub drain_ms: Option<u64>,
    /// Log filter, as in info or strandline_server=debug,warn [env: STRANDLINE_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log lines for people or for machines [env: STRANDLINE_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is described in Layer")]
pub struct Config {
    pub data_dir: PathBuf,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub load_roots: Vec<String>,
    pub backup_root: Option<PathBuf>,
    pub memory_bytes_max: usize,
    pub query_memory_bytes_max: usize,
    pub query_timeout_ms: u64,
    pub scan_threads: usize,
    pub huge_pages: bool,
    pub upload_bytes_max: u64,
    pub drain: Duration,
    pub log: String,
    pub log_format: LogFormat,
}

impl Layer {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::invalid(format!("config file {}: {error}", path.display())))?;
        toml::from_str(&text).map_err(|error| {
            Error::invalid(format!(
                "config file {}: {}",
                path.display(),
                error.to_string().trim_end()
            ))
        })
    }

    /// Reads the environment's variables through `variable`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        fn parse<T: FromStr<Err: std::fmt::Display>>(
            name: &str,
            value: Option<String>,
        ) -> Result<Option<T>> {
            value
                .map(|text| {
                    text.parse()
                        .map_err(|error| Error::invalid(format!("{name}=\"{text}\": {error}")))
                })
                .transpose()
        }
        // An empty variable counts as unset, as in shells' `VAR= command`.
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        macro_rules! read {
            ($name:literal) => {
                parse($name, get($name))?
            };
        }
        Ok(Self {
            data_dir: get("STRANDLINE_DATA_DIR").map(PathBuf::from),
            http: read!("STRANDLINE_HTTP"),
            grpc: read!("STRANDLINE_GRPC"),
            backup_root: get("STRANDLINE_BACKUP_ROOT").map(PathBuf::from),
            load_roots: get("STRANDLINE_LOAD_ROOTS").map(|roots| {
                roots
                    .split(',')
                    .map(str::trim)
                    .filter(|r| !r.is_empty())
                    .map(str::to_owned)
                    .collect()
            }),
            memory_bytes_max: read!("STRANDLINE_MEMORY_BYTES_MAX"),
            query_memory_bytes_max: read!("STRANDLINE_QUERY_MEMORY_BYTES_MAX"),
            query_timeout_ms: read!("STRANDLINE_QUERY_TIMEOUT_MS"),
            scan_threads: read!("STRANDLINE_SCAN_THREADS"),
            huge_pages: read!("STRANDLINE_HUGE_PAGES"),
            upload_bytes_max: read!("STRANDLINE_UPLOAD_BYTES_MAX"),
            drain_ms: read!("STRANDLINE_DRAIN_MS"),
            log: get("STRANDLINE_LOG"),
            log_format: get("STRANDLINE_LOG_FORMAT")
                .map(|text| {
                    <LogFormat as clap::ValueEnum>::from_str(&text, true).map_err(|_| {
                        Error::invalid(format!(
                            "STRANDLINE_LOG_FORMAT=\"{text}\": use text or json"
                        ))
                    })
                })
                .transpose()?,
        })
    }

    /// This, and what it leaves open from `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            http: self.http.or(lower.http),
            grpc: self.grpc.or(lower.grpc),
            load_roots: self.load_roots.or(lower.load_roots),
            backup_root: self.backup_root.or(lower.backup_root),
            memory_bytes_max: self.memory_bytes_max.or(lower.memory_bytes_max),
            query_memory_bytes_max: self.query_memory_bytes_max.or(lower.query_memory_bytes_max),
            query_timeout_ms: self.query_timeout_ms.or(lower.query_timeout_ms),
            scan_threads: self.scan_threads.or(lower.scan_threads),
            huge_pages: self.huge_pages.or(lower.huge_pages),
            upload_bytes_max: self.upload_bytes_max.or(lower.upload_bytes_max),
            drain_ms: self.drain_ms.or(lower.drain_ms),
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
        }
    }

    /// The settings in force, defaults filled in.
    pub fn resolve(self) -> Result<Config> {
        let memory_bytes_max = match self.memory_bytes_max {
            Some(size) => size.to_usize("memory_bytes_max")?,
            None => machine_memory_bytes().map_or(2 << 30, |bytes| bytes / 4),
        };
        let query_memory_bytes_max = match self.query_memory_bytes_max {
            Some(size) => size.to_usize("query_memory_bytes_max")?,
            None => memory_bytes_max / 2,
        };
        if query_memory_bytes_max > memory_bytes_max {
            return Err(Error::invalid(format!(
                "query_memory_bytes_max ({query_memory_bytes_max}) is more than memory_bytes_max ({memory_bytes_max}); lower it"
            )));
        }
        let scan_threads = self.scan_threads.unwrap_or_else(num_cpus::get);
        if !(1..=1024).contains(&scan_threads) {
            return Err(Error::invalid(format!(
                "scan_threads must be 1 to 1024, not {scan_threads}"
            )));
        }
        let query_timeout_ms = self.query_timeout_ms.unwrap_or(60_000);
        if query_timeout_ms == 0 {
            return Err(Error::invalid("query_timeout_ms must be at least 1"));
        }
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let http = self
            .http
            .map_or(local(HTTP_PORT_DEFAULT), |address| address.0);
        let grpc = self
            .grpc
            .map_or(local(GRPC_PORT_DEFAULT), |address| address.0);
        if http == grpc && http.port() != 0 {
            return Err(Error::invalid(format!(
                "http and grpc are both {http}; give each its own port"
            )));
        }
        Ok(Config {
            data_dir: self
                .data_dir
                .unwrap_or_else(|| PathBuf::from("strandline-data")),
            http,
            grpc,
            load_roots: self.load_roots.unwrap_or_default(),
            backup_root: self.backup_root,
            memory_bytes_max,
            query_memory_bytes_max,
            query_timeout_ms,
            scan_threads,
            huge_pages: self.huge_pages.unwrap_or(false),
            upload_bytes_max: self.upload_bytes_max.map_or(16 << 30, |size| size.0),
            drain: Duration::from_millis(self.drain_ms.unwrap_or(10_000)),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

fn machine_memory_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<usize>()
        .ok()?
        .checked_mul(1024)
}

/// A socket address, written `8099`, `0.0.0.0:8099`, `[::1]:8099` or `localhost:8099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let written = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("127.0.0.1:{text}"),
            None => text.to_owned(),
        };
        written
            .parse()
            .map(Self)
            .map_err(|_| "not a port or IP:PORT, as in 8099 or 0.0.0.0:8099".to_owned())
    }
}

/// A number of bytes, written `1048576`, `512MiB`, `4 GiB` or `4G`; units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl ByteSize {
    fn to_usize(self, name: &str) -> Result<usize> {
        usize::try_from(self.0).map_err(|_| {
            Error::invalid(format!(
                "{name}: {} bytes are more than this machine can address",
                self.0
            ))
        })
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || "not a size; write bytes or a number with KiB, MiB, GiB or TiB".to_owned();
        let digits_end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

/// A TOML value that is a number or the text of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn parse<T: FromStr<Err = String>, E: serde::de::Error>(self) -> std::result::Result<T, E> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        };
        text.parse()
            .map_err(|error| E::custom(format!("\"{text}\": {error}")))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        NumberOrText::deserialize(deserializer)?.parse()
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        NumberOrText::deserialize(deserializer)?.parse()
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
