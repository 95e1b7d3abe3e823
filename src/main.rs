//! The `linger` program: parse, run, print the error and its hint, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    linger::cli::run(std::env::args_os())
}
