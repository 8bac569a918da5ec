//! A server in a process of its own, that can be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Bytes of standard error that are kept.
const SAID_BYTES_MAX: usize = 64 << 10;
/// How long a server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A running server. Killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    /// `http://host:port` of gRPC.
    pub grpc: String,
    /// `http://host:port` of HTTP.
    pub http: String,
}

impl Process {
    /// Starts `program serve` over a data folder on free ports, and waits until it is ready.
    /// `kill_at` is a step of a commit at which it ends itself (`build.before:2`).
    pub fn start(program: &str, data: &Path, kill_at: Option<&str>) -> Result<Self, String> {
        Self::start_on(program, data, "127.0.0.1:0", kill_at)
    }

    /// Like [`start`](Self::start), with gRPC on this address. An error ends in what the server wrote on standard error.
    pub fn start_on(
        program: &str,
        data: &Path,
        grpc: &str,
        kill_at: Option<&str>,
    ) -> Result<Self, String> {
        let mut command = Command::new(program);
        command
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", grpc])
            .arg("--data")
            .arg(data)
            .env_remove("STRANDLINE_KILL_AT")
            .env(
                "STRANDLINE_LOG",
                std::env::var("STRANDLINE_LOG").unwrap_or_else(|_| "warn".to_owned()),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(place) = kill_at {
            command.env("STRANDLINE_KILL_AT", place);
        }
        let mut child = command
            .spawn()
            .map_err(|e| format!("cannot start {program}: {e}"))?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let errors = child.stderr.take().ok_or("the server has no output")?;
        let said = Arc::new(Mutex::new(String::new()));
        let saying = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                eprintln!("{line}");
                let mut said = saying.lock().expect("no holder panics");
                if said.len() < SAID_BYTES_MAX {
                    said.push_str(&line);
                    said.push('\n');
                }
            }
        });
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Reading on keeps the server from blocking on a full pipe.
                let _ = lines.send(line);
            }
        });
        let mut process = Self {
            child,
            said: Arc::clone(&said),
            grpc: String::new(),
            http: String::new(),
        };
        loop {
            let line = match received.recv_timeout(READY_WITHIN) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err("the server was not ready in time".to_owned());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = process.child.wait().map_err(|e| e.to_string())?;
                    // Standard error ends with the process.
                    let _ = listener.join();
                    let said = said.lock().expect("no holder panics");
                    return Err(format!(
                        "the server ended before it was ready: {status}: {said}"
                    ));
                }
            };
            let url_after = |word: &str| -> Option<String> {
                let rest = line.split_once(&format!("{word} http://"))?.1;
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                Some(format!("http://{}", &rest[..end]))
            };
            if let (Some(http), Some(grpc)) = (url_after("HTTP"), url_after("gRPC")) {
                process.http = http;
                process.grpc = grpc;
                return Ok(process);
            }
        }
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        // A process that has already ended is as dead as wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it wrote on standard error, of that the first 64 KiB.
    pub fn said(&self) -> String {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Its number, for signals.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// The number that an environment variable holds.
///
/// # Panics
/// When it holds something else.
pub fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}"))
    })
}

/// Runs a command of `program` to its end.
///
/// # Panics
/// When it can't be started.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("cannot start {program}: {e}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
