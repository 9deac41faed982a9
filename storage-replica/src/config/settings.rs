use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use super::{ClientTls, InitialCluster, NodeUrl, Tls, mistakes::did_you_mean};

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
    /// Where metrics and health are served, if anywhere: see [`monitor`](crate::monitor).
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
    /// The cluster is there and has taken it in: see [`Admin::add`](crate::admin::Admin::add).
    Existing {
        /// Client URLs of the cluster, which an embedded node asks for its id.
        endpoints: Vec<NodeUrl>,
    },
    /// It was told who it is: see [`membership`](crate::membership). The initial cluster is what an etcd is given.
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

/// A word that no other cluster has: the ids of the cluster and of its nodes are made of it, and nodes let in who proves to know
/// it. Embedded nodes do not send it, and it is not shown; since the ids are, it should be drawn by lot: `openssl rand -hex 32`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The word itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("a token has at least one character: choose one that no other cluster has".to_owned());
        }
        Ok(Self(text.to_owned()))
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
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if total == 0 { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, millis) in [("500ms", 500), ("15s", 15_000), ("1m", 60_000), ("1m30s", 90_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "s", "1.5s", "-1s", "1 s", "1d", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let token: Token = "s3cret".parse().unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
