//! The `strandline` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    strandline_server::cli::main()
}
