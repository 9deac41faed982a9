//! `snet storage snapshot`: the whole state in one file, and a new cluster of it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;
use storage_replica::{
    config::{Engine, InitialCluster},
    snapshot::{self, NewNode},
};

use super::{flags::ClusterFlags, token::TokenFlags};
use crate::{
    exit::{Failure, Outcome},
    files,
    output::Output,
    table::{Table, thousands},
};

/// Save the whole state of a node in a file, and make a new cluster of one.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Save(Save),
    Salvage(Salvage),
    Status(Status),
    Restore(Restore),
}

/// Save a snapshot of the first node that answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage snapshot save channels.snapshot --endpoints http://10.0.1.1:2379

The format is that of the node's engine; SHA-256 behind it. The file appears when it is whole. `snapshot restore` makes a new
cluster of it; to move data between stores of any kind, see `snet storage copy`.")]
pub(crate) struct Save {
    /// The file, which must not exist.
    file: PathBuf,
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Make a snapshot of what a stopped node holds, when no majority is left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage snapshot salvage channels.snapshot --data-dir n1.storage
      on the machine of a node that is stopped; likewise on those of the others that are left, to compare

It takes everything that the node holds, its whole log with it: also what it does not know to be acknowledged. An acknowledged write may be among that, and a write that
nobody acknowledged. What the node had not received is not in it. Of several nodes, the one whose last term is the highest is the furthest, and of these the one with the highest last index.
Nothing in the directory is changed. While a majority of the nodes can be started with their disks, start them instead: then nothing is lost.")]
pub(crate) struct Salvage {
    /// The file, which must not exist.
    file: PathBuf,
    /// The directory of the node, or of a replica of a cluster that grows by itself.
    #[arg(long, value_name = "DIR", env = "SNET_STORAGE_DATA_DIR")]
    data_dir: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Look whether a snapshot is whole.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage snapshot status channels.snapshot

A file that is damaged or not whole ends the command with code 1.")]
pub(crate) struct Status {
    /// The file.
    file: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Make the data directory of one node of a new cluster, with all keys of a snapshot.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage snapshot restore channels.snapshot --name n1 --data-dir n1.storage --token-file new-token \\
      --initial-cluster n1=http://10.0.1.1:2380,n2=http://10.0.1.2:2380,n3=http://10.0.1.3:2380
      on the machine of n1; likewise, with the same file, for n2 and n3. Then `snet storage init` with the same flags on each

Every node needs the same file. It is looked through whole before anything is written, and the directory appears when it is whole; it must not be
there before, or be empty. The new cluster begins when all of its nodes run. A node that lost its disk after that is replaced as a
member, and not restored again. Keys keep their revisions; leases live their whole time anew. Give the new cluster another token, so that nodes
of the old one cannot meet it. What was written after the snapshot is gone: with `--bump-revision`, more than the writes since then, no
revision that somebody may remember is given again, and who watches is told to begin anew.

A file that is damaged or not whole ends the command with code 1, and nothing is left behind.")]
pub(crate) struct Restore {
    /// The file, as `snapshot save` or `etcdctl snapshot save` has saved it.
    file: PathBuf,
    /// The name of the node, one of those of the initial cluster.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    token: TokenFlags,
    /// All nodes of the new cluster: NAME=PEER_URL,...
    #[arg(long, value_name = "NODES")]
    initial_cluster: InitialCluster,
    /// The directory to make [default: NAME.storage, in the current directory].
    #[arg(long, value_name = "DIR", env = "SNET_STORAGE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Whose snapshot it is; that of an etcd is restored by etcd's own program for that, `etcdutl`.
    #[arg(long, value_name = "ENGINE", default_value = "embedded", env = "SNET_STORAGE_ENGINE")]
    engine: Engine,
    /// The program that restores the snapshot of an etcd [default: etcdutl on the path].
    #[arg(long, value_name = "FILE", env = "ETCDUTL_BIN")]
    etcdutl_program: Option<PathBuf>,
    /// How much to add to the revision.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    bump_revision: u64,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The program that restores the snapshots of etcds, unless another one is named.
const ETCDUTL: &str = "etcdutl";

#[derive(Serialize)]
struct RestoredTo {
    data_dir: String,
    keys: u64,
    leases: u64,
    revision: u64,
}

/// What is known when etcd's own program has made a directory.
#[derive(Serialize)]
struct RestoredByEtcdutl {
    data_dir: String,
}

/// What a stopped node held.
#[derive(Serialize)]
struct FromStopped {
    file: String,
    cluster: String,
    node: String,
    keys: u64,
    leases: u64,
    revision: u64,
    last_term: u64,
    last_index: u64,
    /// The entries up to this one are known there to be acknowledged.
    committed_index: u64,
}

#[derive(Serialize)]
struct Snapshot {
    file: String,
    engine: String,
    bytes: u64,
    sha256: String,
}

pub(super) async fn run(command: &Command) -> Outcome {
    let (file, output) = match command {
        Command::Save(Save { file, nodes }) => {
            save(file, nodes).await?;
            (file, nodes.output)
        }
        Command::Status(Status { file, output }) => (file, *output),
        Command::Salvage(arguments) => return salvage(arguments).await,
        Command::Restore(arguments) => return restore(arguments).await,
    };
    output.print(&check(file)?, |snapshot| {
        let mut table = Table::default();
        table.row(["engine", &snapshot.engine]);
        table.row(["bytes", &thousands(snapshot.bytes as f64)]);
        table.row(["sha256", &snapshot.sha256]);
        table.to_string()
    })
}

async fn save(path: &Path, nodes: &ClusterFlags) -> Outcome {
    let failed = |path: &Path, error: io::Error| Failure::Missing(anyhow!("{}: {error}", path.display()));
    // A link that leads nowhere is something, too.
    if !storage_replica::disk::is_absent(path).map_err(|error| failed(path, error))? {
        return Err(Failure::Usage(anyhow!("{} is there already", path.display())));
    }
    let admin = nodes.admin()?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    // Under another name until it is whole: a backup that was cut off is never taken for one.
    let mut file =
        File::options().write(true).create_new(true).mode(0o600).open(&aside).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Usage(anyhow!(
                "{} is there already: if no other command writes it, it was left by one that was killed, so remove it",
                aside.display()
            )),
            _ => failed(&aside, error),
        })?;
    let saved = admin.snapshot(|piece| file.write_all(piece)).await;
    let saved = saved.map_err(Failure::from).and_then(|_| {
        file.sync_all().map_err(|error| failed(&aside, error))?;
        check(&aside)
    });
    if let Err(failure) = saved {
        // What is not whole is of no use.
        let _ = fs::remove_file(&aside);
        return Err(failure);
    }
    fs::rename(&aside, path).map_err(|error| failed(path, error))?;
    // The name is durable only once its directory is.
    files::sync_dir_of(path).map_err(|error| failed(path, error))
}

async fn salvage(Salvage { file, data_dir, output }: &Salvage) -> Outcome {
    let (path, dir) = (file.clone(), data_dir.clone());
    let found = tokio::task::spawn_blocking(move || snapshot::salvage(&dir, &path)).await;
    let found = found.map_err(|error| Failure::Missing(error.into()))??;
    let salvaged = FromStopped {
        file: file.display().to_string(),
        cluster: format!("{:032x}", found.cluster),
        node: format!("{:x}", found.node),
        keys: found.keys,
        leases: found.leases,
        revision: found.revision,
        last_term: found.last_term,
        last_index: found.last_index,
        committed_index: found.committed_index,
    };
    output.print(&salvaged, |salvaged| {
        let mut table = Table::default();
        table.row(["cluster", &salvaged.cluster]);
        table.row(["node", &salvaged.node]);
        table.row(["keys", &thousands(salvaged.keys as f64)]);
        table.row(["leases", &thousands(salvaged.leases as f64)]);
        table.row(["revision", &salvaged.revision.to_string()]);
        table.row(["last term", &salvaged.last_term.to_string()]);
        table.row(["last index", &salvaged.last_index.to_string()]);
        table.row(["known to be acknowledged up to", &salvaged.committed_index.to_string()]);
        table.to_string()
    })
}

/// Looks whether a file is whole.
fn check(path: &Path) -> Result<Snapshot, Failure> {
    let verified = snapshot::verify(path)?;
    let sha256 = verified.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let (file, engine) = (path.display().to_string(), verified.engine.to_string());
    Ok(Snapshot { file, engine, bytes: verified.bytes, sha256 })
}

async fn restore(arguments: &Restore) -> Outcome {
    let Restore { file, name, token, initial_cluster, data_dir, engine, bump_revision, output, .. } = arguments;
    let data_dir = data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.storage")));
    if *engine == Engine::Etcd {
        return restore_etcd(arguments, &data_dir);
    }
    let new = NewNode {
        name: name.clone(),
        token: token.read()?,
        cluster: initial_cluster.clone(),
        data_dir: data_dir.clone(),
        bump_revision: *bump_revision,
    };
    let file = file.clone();
    // It reads and writes all data, which takes minutes: not on a thread of the runtime.
    let restored = tokio::task::spawn_blocking(move || snapshot::restore(&file, new)).await;
    let restored = restored.map_err(|error| Failure::Missing(error.into()))??;
    let restored = RestoredTo {
        data_dir: data_dir.display().to_string(),
        keys: restored.keys,
        leases: restored.leases,
        revision: restored.revision,
    };
    output.print(&restored, |restored| {
        let mut table = Table::default();
        table.row(["data directory", &restored.data_dir]);
        table.row(["keys", &thousands(restored.keys as f64)]);
        table.row(["leases", &thousands(restored.leases as f64)]);
        table.row(["revision", &restored.revision.to_string()]);
        table.to_string()
    })
}

/// The format of an etcd is etcd's own program's business.
fn restore_etcd(arguments: &Restore, data_dir: &Path) -> Outcome {
    let Restore { file, name, token, initial_cluster, bump_revision, etcdutl_program, .. } = arguments;
    let Some(member) = initial_cluster.member(name) else {
        let names = initial_cluster.names();
        return Err(Failure::Usage(anyhow!("the initial cluster has no node `{name}`, only {names}")));
    };
    // etcd's program says no more of another's file than that it panics.
    if snapshot::verify(file)?.engine != Engine::Etcd {
        let file = file.display();
        return Err(Failure::Usage(anyhow!(
            "{file} is the snapshot of an embedded node: restore it without `--engine etcd`"
        )));
    }
    let program = etcdutl_program.as_deref().unwrap_or(Path::new(ETCDUTL));
    let mut words = vec!["snapshot".to_owned(), "restore".to_owned(), file.display().to_string()];
    for (flag, value) in [
        ("--data-dir", data_dir.display().to_string()),
        ("--name", name.clone()),
        ("--initial-cluster", initial_cluster.to_string()),
        ("--initial-advertise-peer-urls", member.peer_url.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    if *bump_revision > 0 {
        words.extend(["--bump-revision".to_owned(), bump_revision.to_string(), "--mark-compacted".to_owned()]);
    }
    // The token comes last and is left out of what is printed: it is a secret.
    words.push("--initial-cluster-token".to_owned());
    let ended = std::process::Command::new(program).args(&words).arg(token.read()?.as_str()).status();
    let program = program.display();
    match ended {
        Ok(status) if status.success() => {
            let restored = RestoredByEtcdutl { data_dir: data_dir.display().to_string() };
            arguments.output.print(&restored, |restored| {
                let mut table = Table::default();
                table.row(["data directory", &restored.data_dir]);
                table.to_string()
            })
        }
        Ok(status) => Err(Failure::Missing(anyhow!("{program} ended with {status}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::Missing(anyhow!(
            "a snapshot of an etcd is restored by etcd's own program, and there is no {program}: name it with `--etcdutl-program`, \
             or run where there is one:\n\
             {ETCDUTL} {} TOKEN",
            words.join(" ")
        ))),
        Err(error) => Err(Failure::Missing(anyhow!("cannot start {program}: {error}"))),
    }
}
