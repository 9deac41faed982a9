//! `cargo xtask simulate`: many seeds, one after the other, and what came of them.

#[cfg(simulated)]
mod command;

#[cfg(simulated)]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(not(simulated))]
fn main() {
    eprintln!("this build simulates nothing: use `cargo xtask simulate`");
    std::process::exit(2);
}
