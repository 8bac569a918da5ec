//! The server's binary as the tests start and kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    strandline_server::cli::main()
}
