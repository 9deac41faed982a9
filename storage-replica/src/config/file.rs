//! A configuration file: which format it has, whose it is, and what it says of one replica.
//!
//! All files become the same `Settings`, so that nothing behind this module knows where they came from. The environment
//! stands over the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use storage_embedded::disk::exposure;

use super::{
    Bootstrap, ClusterState, Growing, Mistake, Mistakes, NodeSettings, Settings, daemon, environment,
    mistakes::Reporter,
    replicas::{self, NodeRow, ReplicaRow, Replicas},
    tree,
};

/// A configuration that has been read.
#[derive(Clone, Debug)]
pub struct Config(Content);

#[derive(Clone, Debug)]
enum Content {
    /// A table of all replicas.
    Replicas(Box<Replicas>),
    /// The original daemon's file, of one replica.
    Daemon(Box<Settings>),
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// The format that the name of a file says, or else its beginning.
    pub fn of(path: &Path, text: &str) -> Self {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => Self::Json,
            Some("toml") => Self::Toml,
            _ if text.trim_start().starts_with('{') => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{} cannot be used:\n{mistakes}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        mistakes: Mistakes,
    },
}

impl Config {
    /// Reads a file, TOML or JSON, with the process's environment over it ([`VARIABLES`](super::VARIABLES)). The second value
    /// is what looks doubtful in it.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, Vec<Mistake>), LoadError> {
        let path = path.as_ref();
        let text =
            fs::read_to_string(path).map_err(|source| LoadError::Unreadable { path: path.to_path_buf(), source })?;
        Self::read(&text, Format::of(path, &text), exposure(path).as_deref(), |name| std::env::var(name).ok())
            .map_err(|mistakes| LoadError::Wrong { path: path.to_path_buf(), mistakes })
    }

    /// Reads a text, with the values that `variable` has for [`VARIABLES`](super::VARIABLES) over it.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn parse(
        text: &str,
        format: Format,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Mistake>), Mistakes> {
        Self::read(text, format, None, variable)
    }

    /// `exposed`: others can read the file that the text is from, in words.
    fn read(
        text: &str,
        format: Format,
        exposed: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Mistake>), Mistakes> {
        let report = Reporter::default();
        let table = match format {
            Format::Toml => tree::toml(text, &report),
            Format::Json => tree::json(text, &report),
        };
        let content = table.and_then(|mut table| {
            if daemon::is(&table) {
                return daemon::read(table, exposed, variable, &report)
                    .map(|settings| Content::Daemon(Box::new(settings)));
            }
            if format == Format::Json
                && let Some(hint) = daemon::hint(&table, &replicas::KEYS)
            {
                report.mistake(table.location, hint);
                return None;
            }
            // Before the table is read: a variable goes through the same checks as the key that it stands over.
            environment::apply(&mut table, variable);
            replicas::read(&table, exposed, &report).map(|replicas| Content::Replicas(Box::new(replicas)))
        });
        report.finish(content.map(Self))
    }

    /// The replicas of the table, in its order. None for a file that describes one replica alone.
    pub fn replicas(&self) -> &[ReplicaRow] {
        match &self.0 {
            Content::Replicas(replicas) => &replicas.rows,
            Content::Daemon(_) => &[],
        }
    }

    /// What one replica does. The id has to be given if the file lists several.
    ///
    /// # Errors
    /// Why there is no such replica, with those that there are.
    pub fn settings(&self, replica: Option<u64>) -> Result<Settings, String> {
        match (&self.0, replica) {
            (Content::Daemon(settings), None) => Ok(Settings::clone(settings)),
            (Content::Daemon(_), Some(_)) => Err("the file describes one replica, which has no id".to_owned()),
            (Content::Replicas(replicas), Some(id)) => match replicas.rows.iter().find(|row| row.id == id) {
                Some(row) => Ok(settings(replicas, row)),
                None => Err(format!("there is no replica {id} in the table, only {}", ids(replicas))),
            },
            (Content::Replicas(replicas), None) => {
                Err(format!("the file lists several replicas, {}: say which is meant", ids(replicas)))
            }
        }
    }

    /// Whether the file says that the cluster grows by itself: it has a table `membership`.
    pub fn grows(&self) -> bool {
        matches!(&self.0, Content::Replicas(replicas) if replicas.timing.is_some())
    }

    /// What one replica does in a cluster that grows by itself: each replica whose row describes a node may be given one.
    ///
    /// # Errors
    /// Why there is no such replica, or it can have no node.
    pub fn growing(&self, replica: u64, bootstrap: Bootstrap) -> Result<Growing, String> {
        let Content::Replicas(table) = &self.0 else {
            return Err("a cluster that grows by itself needs a file that lists all replicas".to_owned());
        };
        let Settings { client_tls, startup_timeout, log, admin_url, node, .. } = self.settings(Some(replica))?;
        let Some(node) = node else {
            return Err(format!(
                "replica {replica} starts no node: its row needs `node_name`, `client_url` and `peer_url`"
            ));
        };
        let replicas = table.rows.iter().filter_map(|row| {
            let NodeRow { name, client_url, peer_url, .. } = row.node.clone()?;
            Some(storage_membership::Replica { id: row.id, name, client_url, peer_url })
        });
        let replicas: Vec<_> = replicas.collect();
        let own = replicas.iter().find(|row| row.id == replica).cloned();
        table.token.check()?;
        let membership = storage_membership::Settings {
            replica: own.ok_or_else(|| format!("there is no replica {replica} with a node"))?,
            replicas,
            token: table.token.clone(),
            data_dir: node.data_dir,
            bootstrap,
            timing: table.timing.unwrap_or_default(),
            is_dry_run: false,
        };
        Ok(Growing {
            membership,
            engine: table.engine,
            bounds: table.bounds,
            max_connections: table.max_connections,
            etcd_program: table.etcd_program.clone(),
            tls: node.tls,
            client_tls,
            startup_timeout,
            log,
            admin_url,
        })
    }
}

fn ids(replicas: &Replicas) -> String {
    replicas.rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>().join(", ")
}

fn settings(replicas: &Replicas, row: &ReplicaRow) -> Settings {
    let own = row.node.as_ref();
    let others = replicas.rows.iter().filter(|other| other.id != row.id).filter_map(|other| other.node.as_ref());
    Settings {
        node: own.map(|NodeRow { name, client_url, peer_url, tls }| NodeSettings {
            name: name.clone(),
            token: replicas.token.clone(),
            client_url: client_url.clone(),
            peer_url: peer_url.clone(),
            cluster: replicas.cluster.clone(),
            state: ClusterState::New,
            tls: tls.clone(),
            // All replicas are given the same file, and some may share a machine.
            data_dir: replicas.data_dir.join(name),
            engine: replicas.engine,
            bounds: replicas.bounds,
            max_connections: replicas.max_connections,
            etcd_program: replicas.etcd_program.clone(),
            log: replicas.log.clone(),
        }),
        endpoints: own.into_iter().chain(others).map(|node| node.client_url.clone()).collect(),
        client_tls: row.client_tls.clone(),
        startup_timeout: replicas.startup_timeout,
        log: replicas.log.clone(),
        admin_url: row.admin_url.clone(),
    }
}
