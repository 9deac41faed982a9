//! `snet storage certs`: certificates to try TLS with, of an authority made for it.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::config;
use crate::{
    exit::{Failure, Outcome},
    files,
};

/// Make an authority and certificates, for a cluster that is tried out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage certs --out certs --node n1=10.0.1.1 --node n2=10.0.1.2,node-2.example --node n3=10.0.1.3
      ca.crt and ca.key; n1.crt, n1.key and so on for the nodes; client.crt and client.key for clients
  snet storage certs --out certs --config cluster.toml
      for the hosts of the nodes in the file

Nodes and clients need ca.crt and their own files. Whoever has ca.key can make a certificate for anybody: keep it elsewhere. For
more than a trial, use the authority that your organization has.")]
pub(crate) struct Certs {
    /// The folder to write to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A node and the hosts of its URLs, names or addresses: NAME=HOST,... May stand several times.
    #[arg(long, value_name = "NODE", required_unless_present = "config")]
    node: Vec<Node>,
    /// Take the nodes of this configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    config: Option<PathBuf>,
    /// How long the certificates are valid, in days.
    #[arg(long, default_value_t = 365, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
}

/// A node and its hosts.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    hosts: Vec<String>,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no node: it is written NAME=HOST,...");
        let (name, hosts) = text.split_once('=').ok_or_else(wrong)?;
        let hosts: Vec<_> = hosts.split(',').map(str::to_owned).collect();
        if !is_file_name(name) || !hosts.iter().all(|host| is_host(host)) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), hosts })
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
}

fn is_file_name(name: &str) -> bool {
    let reserved = ["ca", "client"].contains(&name);
    !reserved && !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\'])
}

/// Since clocks differ, certificates are valid from a while ago.
const VALID_SINCE: Duration = Duration::from_secs(3600);

pub(super) fn run(arguments: &Certs) -> Outcome {
    let nodes = match &arguments.config {
        Some(file) => nodes_of(file)?,
        None => arguments.node.clone(),
    };
    let names: Vec<_> = ["ca", "client"].into_iter().chain(nodes.iter().map(|node| node.name.as_str())).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|two| two.first() == two.last()).and_then(<[_]>::first) {
        return Err(Failure::Usage(anyhow!("there are two nodes `{twice}`")));
    }
    let there: Vec<_> = names
        .iter()
        .flat_map(|name| [cert(&arguments.out, name), key(&arguments.out, name)])
        .filter(|file| !matches!(fs::symlink_metadata(file), Err(error) if error.kind() == ErrorKind::NotFound))
        .map(|file| file.display().to_string())
        .collect();
    if !there.is_empty() && !arguments.force {
        return Err(Failure::Usage(anyhow!("{} is there already; --force writes over it", there.join(", "))));
    }
    write_all(arguments, &nodes).map_err(Failure::Missing)?;
    say(&arguments.out, &nodes)
}

/// The nodes of a file, with the hosts of both their URLs.
fn nodes_of(file: &Path) -> Result<Vec<Node>, Failure> {
    let config = config::load(file)?;
    let mut nodes = Vec::new();
    for row in config.replicas().iter().filter_map(|row| row.node.as_ref()) {
        if !is_file_name(&row.name) {
            return Err(Failure::Usage(anyhow!("a node `{}` would have files that are another's", row.name)));
        }
        let mut hosts: Vec<_> = [&row.client_url, &row.peer_url].map(|url| host(url.host())).into();
        hosts.dedup();
        nodes.push(Node { name: row.name.clone(), hosts });
    }
    if nodes.is_empty() {
        return Err(Failure::Usage(anyhow!("{} lists no nodes: name them with --node", file.display())));
    }
    Ok(nodes)
}

/// Without the brackets of an IPv6 address.
fn host(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn write_all(arguments: &Certs, nodes: &[Node]) -> anyhow::Result<()> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut params = params("snet storage authority", &[], arguments.days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write(&cert(out, "ca"), &authority.pem(), PUBLIC)?;
    write(&key(out, "ca"), &authority.key().serialize_pem(), PRIVATE)?;
    let client = Node { name: "client".to_owned(), hosts: Vec::new() };
    let whose = nodes.iter().map(|node| (node, vec![ServerAuth, ClientAuth])).chain([(&client, vec![ClientAuth])]);
    for (Node { name, hosts }, uses) in whose {
        let mut params = self::params(name, hosts, arguments.days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses;
        let own = KeyPair::generate()?;
        write(&cert(out, name), &params.signed_by(&own, &authority)?.pem(), PUBLIC)?;
        write(&key(out, name), &own.serialize_pem(), PRIVATE)?;
    }
    Ok(())
}

fn params(name: &str, hosts: &[String], days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts).with_context(|| format!("the hosts of {name}: {hosts:?}"))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    #[expect(clippy::disallowed_methods, reason = "certificates are valid by wall clocks")]
    let now = SystemTime::now();
    params.not_before = (now - VALID_SINCE).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 3600)).into();
    Ok(params)
}

fn cert(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.crt"))
}

fn key(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.key"))
}

/// Rights of files: for everybody to read, and for the owner alone.
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// Writes a file, which nobody could open while it had other rights. One that was there before is whole until this one is.
fn write(file: &Path, text: &str, rights: u32) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let mut aside = file.as_os_str().to_owned();
    aside.push(".new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(cannot),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, rights);
    #[cfg(not(unix))]
    let _ = rights;
    let written = options.open(&aside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let written = written.and_then(|()| fs::rename(&aside, file));
    written.and_then(|()| files::sync_dir_of(file)).with_context(cannot)
}

fn say(out: &Path, nodes: &[Node]) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    let (ca, client_cert, client_key) = (cert(out, "ca"), cert(out, "client"), key(out, "client"));
    let ca = ca.display();
    for Node { name, hosts } in nodes {
        let (cert, key) = (cert(out, name), key(out, name));
        writeln!(stdout, "node {name}, at {}, with https in all URLs:", hosts.join(" and "))?;
        writeln!(stdout, "  --cert-file {} --key-file {} --trusted-ca-file {ca}", cert.display(), key.display())?;
    }
    writeln!(stdout, "clients, etcdctl too:")?;
    writeln!(stdout, "  --cacert {ca} --cert {} --key {}", client_cert.display(), client_key.display())?;
    writeln!(stdout, "{} signs more; nobody needs it to run: keep it elsewhere", key(out, "ca").display())?;
    Ok(())
}
