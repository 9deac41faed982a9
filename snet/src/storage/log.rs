//! Where the messages of the libraries go while a node runs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
};

use anyhow::anyhow;
use storage_replica::config::{Log, LogFormat, LogLevel, LogOutput};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// Libraries below ours that say at each level what is for their own developers.
const QUIET: &str = "openraft=error";
/// Even while debugging, these would say more than all else together.
const DEBUG: &str = "debug,h2=info,hyper=info,hyper_util=info,tonic=info,tower=info";

/// Begins to log, as the configuration says.
pub(super) fn begin(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::new(match log.level {
        LogLevel::Debug => DEBUG.to_owned(),
        level => format!("{},{QUIET}", level.name()),
    });
    let stderr = [LogOutput::Stderr];
    let outputs = if log.outputs.is_empty() { &stderr[..] } else { &log.outputs };
    let outputs = outputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let writer = move || Tee(outputs.iter().map(Output::again).collect());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    match log.format {
        LogFormat::Human => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

fn open(output: &LogOutput) -> Result<Output, Failure> {
    Ok(match output {
        LogOutput::Stderr => Output::Stderr,
        LogOutput::Stdout => Output::Stdout,
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Output::File(
                file.map_err(|error| Failure::Missing(anyhow!("cannot log to {}: {error}", path.display())))?.into(),
            )
        }
    })
}

enum Output {
    Stderr,
    Stdout,
    File(std::sync::Arc<File>),
}

impl Output {
    fn again(&self) -> Self {
        match self {
            Self::Stderr => Self::Stderr,
            Self::Stdout => Self::Stdout,
            Self::File(file) => Self::File(std::sync::Arc::clone(file)),
        }
    }
}

/// All outputs. One that takes nothing more does not keep the others from being written.
struct Tee(Vec<Output>);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for output in &mut self.0 {
            let _ = match output {
                Output::Stderr => io::stderr().lock().write_all(bytes),
                Output::Stdout => io::stdout().lock().write_all(bytes),
                Output::File(file) => (&**file).write_all(bytes),
            };
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
