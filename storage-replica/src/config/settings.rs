//! What one replica does, and the words that stand for it in files and on command lines.
//!
//! Data and parsers only: a value that is here has been checked. Durations and bytes are written as Go and etcd write
//! them.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use storage_embedded::Bounds;
use storage_membership::{NodeUrl, Token};

use super::{ClientTls, InitialCluster, Tls, mistakes::did_you_mean};

/// What one replica does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node that it starts, if it starts one.
    pub node: Option<NodeSettings>,
    /// Where clients reach the nodes of the cluster, as far as this is known; that of its own node first. A replica
    /// without a node needs one.
    pub endpoints: Vec<NodeUrl>,
    /// How it reaches client URLs with `https`.
    pub client_tls: ClientTls,
    /// How long it waits until the cluster serves.
    pub startup_timeout: Duration,
    /// What it logs, and where.
    pub log: Log,
    /// Where metrics and health are served, if anywhere.
    pub admin_url: Option<NodeUrl>,
}

/// A node that a replica starts.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its name, one of those of the cluster.
    pub name: String,
    /// What the nodes of the cluster have in common: each founding node is given the same.
    pub token: Token,
    /// Where clients reach the node, and where it listens for them.
    pub client_url: NodeUrl,
    /// Where other nodes reach the node, and where it listens for them.
    pub peer_url: NodeUrl,
    /// All nodes that found the cluster, this one among them.
    pub cluster: InitialCluster,
    /// How it comes into the cluster while it has no data.
    pub state: ClusterState,
    /// The certificates for URLs with `https`.
    pub tls: Tls,
    /// The directory of this node's data.
    pub data_dir: PathBuf,
    /// What the node is.
    pub engine: Engine,
    /// Bounds of what an embedded node keeps on its disk; an etcd has its own.
    pub bounds: Bounds,
    /// How many connections clients of an embedded node may have at the most: see [`storage_etcd_api::Options::max_connections`].
    pub max_connections: usize,
    /// The program of an etcd; `None`: the environment variable `ETCD_BIN`, or `etcd` on the path.
    pub etcd_program: Option<PathBuf>,
    /// What an etcd logs, and where; an embedded node logs with the program.
    pub log: Log,
}

/// How a node without data comes into its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// It founds the cluster with the others.
    #[default]
    New,
    /// The cluster is there and has taken it in.
    Existing {
        /// Client URLs of the cluster, which an embedded node asks for its id.
        endpoints: Vec<NodeUrl>,
    },
    /// It was told who it is: see [`storage_membership`]. The initial cluster is what an etcd is given.
    Given {
        /// The id of its cluster.
        cluster: u128,
        /// Its own; an etcd that founds a cluster finds its own by itself.
        node: u64,
        /// It founds the cluster alone.
        founds: bool,
    },
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The embedded engine: a node inside this process.
    #[default]
    Embedded,
    /// An etcd that this process starts, watches and stops.
    Etcd,
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "etcd" => Ok(Self::Etcd),
            _ => {
                let hint = did_you_mean(text, ["embedded", "etcd"]);
                Err(format!("there is no engine `{text}`, only `embedded` and `etcd`{hint}"))
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        })
    }
}

/// What is logged, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least grave messages that are logged.
    pub level: LogLevel,
    /// Where to; empty: standard error.
    pub outputs: Vec<LogOutput>,
    /// How a message is written. An etcd always writes JSON.
    pub format: LogFormat,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Human,
    /// A line with a JSON object, for programs.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => {
                let hint = did_you_mean(text, ["human", "json"]);
                Err(format!("there is no format `{text}`, only human and json{hint}"))
            }
        }
    }
}

/// How grave a message is. The names are those of etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens in the usual course.
    #[default]
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// etcd's levels above `error` are for what ends it; here they mean `error`.
    const NAMES: [(&'static str, Self); 6] = [
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
        ("panic", Self::Error),
        ("fatal", Self::Error),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, level)| *level).ok_or_else(|| {
            let hint = did_you_mean(text, Self::NAMES.map(|(name, _)| name));
            format!("there is no level `{text}`, only debug, info, warn and error{hint}")
        })
    }
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

impl FromStr for LogOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("an output is `stderr`, `stdout` or a file".to_owned()),
            "stderr" | "default" => Ok(Self::Stderr),
            "stdout" => Ok(Self::Stdout),
            file => Ok(Self::File(file.into())),
        }
    }
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

/// `500ms`, `15s`, `1m30s`, `2h`, as Go writes durations.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: it is written 500ms, 15s, 1m30s");
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        // Checked: a number that is too long is a mistake in the file, and not a short time.
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

/// The least bound of bytes that may be set: one value of the largest size must be far from it.
const LEAST_BYTES: u64 = 16 << 20;

/// A number of bytes, as it is written: `64MiB`, `1GiB`, `67108864`; at least 16 MiB.
///
/// # Errors
/// How it is written.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let scale = match unit.trim_start() {
        "" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    match bytes {
        Some(bytes) if bytes >= LEAST_BYTES => Ok(bytes),
        Some(_) => Err(format!("{text} is too little: at least 16MiB")),
        None => Err(format!("`{text}` is no number of bytes: it is written 64MiB, 1GiB, 67108864")),
    }
}

/// How many connections a client port may have, as it is written: at least 1.
///
/// # Errors
/// How it is written.
pub fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{text}` is no number of connections: at least 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_connection_at_least() {
        assert_eq!(parse_connections("10000"), Ok(10_000));
        for text in ["", "0", "-1", "many", "1.5"] {
            assert!(parse_connections(text).unwrap_err().contains("is no number of connections"), "{text}");
        }
    }

    #[test]
    fn bytes_are_written_with_a_unit_or_without() {
        for (text, bytes) in [("16MiB", 16 << 20), ("65536 KiB", 64 << 20), ("2GiB", 2 << 30), ("67108864", 64 << 20)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "64MB", "64 mib", "-1", "1.5GiB", "MiB", "99999999999GiB"] {
            assert!(parse_bytes(text).unwrap_err().contains("is no number of bytes"), "{text}");
        }
        assert!(parse_bytes("16777215").unwrap_err().contains("too little"));
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, millis) in [("500ms", 500), ("15s", 15_000), ("1m", 60_000), ("1m30s", 90_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "s", "1.5s", "-1s", "1 s", "1d", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }
}
