//! `snet storage auth`: the users of a cluster's clients, their roles, and what these may do.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use storage_replica::admin::{Access, Admin, KeyPermission, PermittedKeys};

use super::{flags::ClusterFlags, password};
use crate::{exit::Outcome, table::Table};

/// Say who may do what: users, roles, and whether they are asked for.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  snet storage auth user add root --endpoints http://10.0.1.1:2379
  snet storage auth user grant root root --endpoints http://10.0.1.1:2379
  snet storage auth enable --endpoints http://10.0.1.1:2379
      from now on each request needs a user; root may do everything
  snet storage auth role add payments --user root --endpoints http://10.0.1.1:2379
  snet storage auth role allow payments read-write payments/ --prefix --user root --endpoints http://10.0.1.1:2379
  snet storage auth user add service --new-password-file service.password --user root --endpoints http://10.0.1.1:2379
  snet storage auth user grant service payments --user root --endpoints http://10.0.1.1:2379

Passwords are asked for, or come from files or the environment: see --user. Nodes of either engine, and of any etcd v3.")]
pub(crate) enum Command {
    /// Ask clients for users from now on; there has to be a user root with the role root.
    Enable(Nodes),
    /// Ask clients for users no more.
    Disable(Nodes),
    /// Tell whether clients are asked for users.
    Status(Nodes),
    /// Look at and change users.
    #[command(subcommand)]
    User(User),
    /// Look at and change roles.
    #[command(subcommand)]
    Role(Role),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Nodes {
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// A user or a role.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name.
    name: String,
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// Look at and change users.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List the users.
    List(Nodes),
    /// Tell the roles of a user.
    Show(Named),
    /// Make a user. Its password is asked for, or read from standard input.
    Add {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        password: NewPassword,
        /// It has none: it is known by the common name in its certificate alone.
        #[arg(long, conflicts_with = "new_password_file")]
        no_password: bool,
    },
    /// Delete a user.
    Delete(Named),
    /// Give a user another password. It has to log in again.
    Password {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a user a role.
    Grant(UserRole),
    /// Take a role from a user.
    Revoke(UserRole),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewPassword {
    /// The file with the new password.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UserRole {
    #[command(flatten)]
    named: Named,
    /// The role.
    role: String,
}

/// Look at and change roles.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// List the roles.
    List(Nodes),
    /// Tell what a role may do.
    Show(Named),
    /// Make a role, which may do nothing yet.
    Add(Named),
    /// Delete a role; its users lose it.
    Delete(Named),
    /// Let a role do something with some keys.
    Allow {
        #[command(flatten)]
        named: Named,
        /// What it may do.
        access: AccessArgument,
        #[command(flatten)]
        keys: Keys,
    },
    /// Take from a role what it may do with some keys, named as they were allowed.
    Deny {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        keys: Keys,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AccessArgument {
    /// Read and watch.
    Read,
    /// Write and delete.
    Write,
    /// Both.
    ReadWrite,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Keys {
    /// The key.
    key: String,
    /// All keys that begin with it.
    #[arg(long, conflicts_with_all = ["from_key", "range_end"])]
    prefix: bool,
    /// It and all keys behind it.
    #[arg(long, conflicts_with = "range_end")]
    from_key: bool,
    /// It and the keys behind it that are before this one.
    #[arg(long, value_name = "KEY")]
    range_end: Option<String>,
}

impl Keys {
    fn permitted(&self) -> PermittedKeys {
        let key = self.key.as_bytes();
        match &self.range_end {
            Some(end) => PermittedKeys { key: key.to_vec(), range_end: end.clone().into_bytes() },
            None if self.prefix => PermittedKeys::prefix(key),
            None if self.from_key => PermittedKeys::from(key),
            None => PermittedKeys::one(key),
        }
    }
}

#[derive(Serialize)]
struct Status {
    enabled: bool,
    revision: u64,
}

#[derive(Serialize)]
struct Names {
    names: Vec<String>,
}

#[derive(Serialize)]
struct Permissions {
    permissions: Vec<Permission>,
}

/// What a role may do, as it is printed.
#[derive(Serialize)]
struct Permission {
    access: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<String>,
}

#[derive(Serialize)]
struct Done {
    done: &'static str,
}

pub(super) async fn run(command: &Command) -> Outcome {
    match command {
        Command::Enable(Nodes { nodes }) => {
            nodes.admin()?.enable_users().await?;
            done(nodes, "clients are asked for users")
        }
        Command::Disable(Nodes { nodes }) => {
            nodes.admin()?.disable_users().await?;
            done(nodes, "clients are not asked for users")
        }
        Command::Status(Nodes { nodes }) => {
            let status = nodes.admin()?.users_status().await?;
            let status = Status { enabled: status.enabled, revision: status.revision };
            nodes.output.print(&status, |Status { enabled, revision }| {
                let asked = if *enabled { "asked" } else { "not asked" };
                format!("clients are {asked} for users; revision {revision}\n")
            })
        }
        Command::User(command) => user(command).await,
        Command::Role(command) => role(command).await,
    }
}

async fn user(command: &User) -> Outcome {
    match command {
        User::List(Nodes { nodes }) => names(nodes, nodes.admin()?.users().await?),
        User::Show(Named { name, nodes }) => names(nodes, nodes.admin()?.user_roles(name).await?),
        User::Add { named: Named { name, nodes }, password, no_password } => {
            let admin = nodes.admin()?;
            let password = if *no_password { None } else { Some(password.of(name)?) };
            admin.add_user(name, password).await?;
            done(nodes, "the user is there")
        }
        User::Delete(Named { name, nodes }) => {
            nodes.admin()?.delete_user(name).await?;
            done(nodes, "the user is deleted")
        }
        User::Password { named: Named { name, nodes }, password } => {
            let admin = nodes.admin()?;
            admin.set_password(name, password.of(name)?).await?;
            done(nodes, "the user has another password")
        }
        User::Grant(UserRole { named: Named { name, nodes }, role }) => {
            nodes.admin()?.grant_role(name, role).await?;
            done(nodes, "the user has the role")
        }
        User::Revoke(UserRole { named: Named { name, nodes }, role }) => {
            nodes.admin()?.revoke_role(name, role).await?;
            done(nodes, "the user has the role no more")
        }
    }
}

async fn role(command: &Role) -> Outcome {
    match command {
        Role::List(Nodes { nodes }) => names(nodes, nodes.admin()?.roles().await?),
        Role::Show(Named { name, nodes }) => permissions(nodes, &nodes.admin()?, name).await,
        Role::Add(Named { name, nodes }) => {
            nodes.admin()?.add_role(name).await?;
            done(nodes, "the role is there")
        }
        Role::Delete(Named { name, nodes }) => {
            nodes.admin()?.delete_role(name).await?;
            done(nodes, "the role is deleted")
        }
        Role::Allow { named: Named { name, nodes }, access, keys } => {
            let access = match access {
                AccessArgument::Read => Access::Read,
                AccessArgument::Write => Access::Write,
                AccessArgument::ReadWrite => Access::ReadWrite,
            };
            nodes.admin()?.grant_permission(name, keys.permitted(), access).await?;
            done(nodes, "the role may do it")
        }
        Role::Deny { named: Named { name, nodes }, keys } => {
            nodes.admin()?.revoke_permission(name, keys.permitted()).await?;
            done(nodes, "the role may do it no more")
        }
    }
}

impl NewPassword {
    fn of(&self, user: &str) -> Result<String, crate::exit::Failure> {
        password::new(user, self.new_password_file.as_deref())
    }
}

fn done(nodes: &ClusterFlags, what: &'static str) -> Outcome {
    nodes.output.print(&Done { done: what }, |Done { done }| format!("{done}\n"))
}

fn names(nodes: &ClusterFlags, names: Vec<String>) -> Outcome {
    nodes.output.print(&Names { names }, |Names { names }| names.iter().map(|name| format!("{name}\n")).collect())
}

async fn permissions(nodes: &ClusterFlags, admin: &Admin, role: &str) -> Outcome {
    let permissions = admin.permissions(role).await?.into_iter().map(Permission::from).collect();
    nodes.output.print(&Permissions { permissions }, |Permissions { permissions }| {
        let mut table = Table::default();
        table.row(["may", "key", "before"].map(str::to_owned));
        for Permission { access, key, range_end } in permissions {
            table.row([(*access).to_owned(), key.clone(), range_end.clone().unwrap_or_default()]);
        }
        table.to_string()
    })
}

impl From<KeyPermission> for Permission {
    fn from(KeyPermission { keys, access }: KeyPermission) -> Self {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Self {
            access: match access {
                Some(Access::Read) => "read",
                Some(Access::Write) => "write",
                Some(Access::ReadWrite) => "read-write",
                None => "nothing known",
            },
            key: text(&keys.key),
            range_end: (!keys.range_end.is_empty()).then(|| text(&keys.range_end)),
        }
    }
}
