//! What can be set up, and from what.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Environment variables and their values: what a set-up program is to those who use it.
pub(super) type Variables = Vec<(&'static str, String)>;

/// One thing that can be set up.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The word on the command line.
    pub(super) name: &'static str,
    /// What it is for, in a few words.
    pub(super) purpose: &'static str,
    /// Debian packages with the release to take each from; the version of the first is the version of the whole.
    pub(super) packages: &'static [Package],
    /// What a person sets or installs on a machine without Debian's tools.
    pub(super) by_hand: &'static str,
    /// Finds it in the environment: variables first, then programs on `PATH`.
    pub(super) on_machine: fn() -> Option<Variables>,
    /// Finds it in a folder that the packages were unpacked to, and completes what needs completing.
    pub(super) in_tree: fn(&Path) -> Result<Variables>,
}

/// A Debian package and the release that has the wanted version.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) release: &'static str,
}

const fn package(name: &'static str, release: &'static str) -> Package {
    Package { name, release }
}

/// Everything there is, in the order of `setup all`.
pub(super) const RECIPES: [Recipe; 6] = [
    Recipe {
        name: "protoc",
        purpose: "the protobuf compiler, which builds the etcd client",
        packages: &[
            package("protobuf-compiler", "bookworm"),
            package("libprotoc32", "bookworm"),
            package("libprotobuf32", "bookworm"),
            package("libprotobuf-dev", "bookworm"),
        ],
        by_hand: "install protobuf (apt install protobuf-compiler, dnf install protobuf-devel, brew install protobuf), \
                  or set PROTOC and PROTOC_INCLUDE",
        on_machine: || {
            let program = variable("PROTOC").or_else(|| on_path("protoc"))?;
            let include = variable("PROTOC_INCLUDE").or_else(|| include_folder(&program));
            let include = include.map(|include| ("PROTOC_INCLUDE", include));
            Some([("PROTOC", program)].into_iter().chain(include).collect())
        },
        in_tree: |tree| {
            let wrapper = protoc_wrapper(tree)?;
            Ok(vec![("PROTOC", text(wrapper)), ("PROTOC_INCLUDE", text(tree.join("usr/include")))])
        },
    },
    Recipe {
        name: "etcd",
        purpose: "the etcd server",
        packages: &[package("etcd-server", "trixie"), package("etcd-client", "trixie")],
        by_hand: "install etcd 3.4 or later from https://etcd.io/docs/latest/install/ onto PATH, or set ETCD_BIN",
        on_machine: || {
            let server = variable("ETCD_BIN").or_else(|| on_path("etcd"))?;
            let beside = [("ETCDCTL_BIN", "etcdctl"), ("ETCDUTL_BIN", "etcdutl")];
            let beside = beside.map(|(name, program)| Some((name, variable(name).or_else(|| on_path(program))?)));
            Some([("ETCD_BIN", server)].into_iter().chain(beside.into_iter().flatten()).collect())
        },
        in_tree: |tree| {
            let program = |name| existing(tree.join("usr/bin").join(name));
            let (server, client, offline) = (program("etcd")?, program("etcdctl")?, program("etcdutl")?);
            Ok(vec![("ETCD_BIN", server), ("ETCDCTL_BIN", client), ("ETCDUTL_BIN", offline)])
        },
    },
    Recipe {
        name: "consul",
        purpose: "the Consul server",
        // Later releases have no Consul: its licence is no longer free.
        packages: &[package("consul", "bullseye")],
        by_hand: "install Consul from https://developer.hashicorp.com/consul/install onto PATH, or set CONSUL_BIN",
        on_machine: || Some(vec![("CONSUL_BIN", variable("CONSUL_BIN").or_else(|| on_path("consul"))?)]),
        in_tree: |tree| Ok(vec![("CONSUL_BIN", existing(tree.join("usr/bin/consul"))?)]),
    },
    Recipe {
        name: "java",
        purpose: "Java, which runs ZooKeeper",
        packages: &[package("openjdk-17-jre-headless", "bookworm")],
        by_hand: "install a Java runtime, 8 or later, onto PATH, or set JAVA_BIN or JAVA_HOME",
        on_machine: || {
            let home = || env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
            let java = variable("JAVA_BIN").or_else(|| home().filter(|java| java.exists()).map(text));
            Some(vec![("JAVA_BIN", java.or_else(|| on_path("java"))?)])
        },
        in_tree: |tree| {
            let machines = fs::read_dir(tree.join("usr/lib/jvm")).context("no Java in the package")?;
            let java = machines.flatten().map(|machine| machine.path().join("bin/java")).find(|java| java.exists());
            Ok(vec![("JAVA_BIN", text(java.context("no bin/java in the package")?))])
        },
    },
    Recipe {
        name: "zk",
        purpose: "the ZooKeeper server's Java archives",
        packages: &[
            package("libzookeeper-java", "trixie"),
            package("libslf4j-java", "bookworm"),
            package("libdropwizard-metrics-java", "bookworm"),
            // Without this one ZooKeeper listens, never serves, and logs no error.
            package("libsnappy-java", "bookworm"),
            // With these it serves TLS.
            package("libnetty-java", "bookworm"),
            package("libjctools-java", "bookworm"),
        ],
        by_hand: "unpack a release from https://zookeeper.apache.org/releases.html and set ZK_HOME to its folder, \
                  or set ZOOKEEPER_CLASSPATH to its jars",
        on_machine: || {
            let home = || env::var_os("ZK_HOME").map(PathBuf::from).or_else(zookeeper_on_path);
            Some(vec![("ZOOKEEPER_CLASSPATH", variable("ZOOKEEPER_CLASSPATH").or_else(|| Some(jars_of(&home()?)))?)])
        },
        in_tree: |tree| {
            let jars = ZOOKEEPER_JARS.iter().map(|jar| existing(tree.join(format!("usr/share/java/{jar}.jar"))));
            let jars: Result<Vec<_>> = jars.collect();
            Ok(vec![("ZOOKEEPER_CLASSPATH", jars?.join(":"))])
        },
    },
    Recipe {
        name: "faketime",
        purpose: "the library that gives a process another wall clock",
        packages: &[package("libfaketime", "bookworm")],
        by_hand: "install libfaketime (apt install libfaketime, dnf install libfaketime), or set LIBFAKETIME to its \
                  libfaketimeMT.so.1",
        on_machine: || {
            let usual =
                || ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().find_map(|lib| faketime_in(Path::new(lib)));
            Some(vec![("LIBFAKETIME", variable("LIBFAKETIME").or_else(usual)?)])
        },
        in_tree: |tree| {
            let library = faketime_in(&tree.join("usr/lib")).context("no libfaketimeMT.so.1 in the package")?;
            Ok(vec![("LIBFAKETIME", library)])
        },
    },
];

/// Debian has a folder for each kind of machine between.
fn faketime_in(lib: &Path) -> Option<String> {
    let within = fs::read_dir(lib).ok()?.flatten().map(|entry| entry.path());
    let folders = std::iter::once(lib.to_owned()).chain(within);
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists()).map(text)
}

/// What the server needs to run, of all that is in the packages; the second half for TLS alone.
const ZOOKEEPER_JARS: [&str; 14] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "metrics-core",
    "snappy-java",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
    "jctools-core",
];

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a program is, if it is on `PATH`.
pub(super) fn on_path(program: &str) -> Option<String> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file()).map(text)
}

/// The well-known types lie in `include` beside the `bin` of the program in every distribution and in protoc's own archives.
fn include_folder(protoc: &str) -> Option<String> {
    let include = fs::canonicalize(protoc).ok()?.parent()?.parent()?.join("include");
    include.join("google/protobuf/any.proto").exists().then(|| text(include))
}

/// ZooKeeper's own archive has `bin/zkServer.sh`, and the jars in `lib` beside `bin`.
fn zookeeper_on_path() -> Option<PathBuf> {
    let script = fs::canonicalize(on_path("zkServer.sh")?).ok()?;
    Some(script.parent()?.parent()?.to_owned()).filter(|home| home.join("lib").is_dir())
}

fn jars_of(home: &Path) -> String {
    format!("{0}/lib/*:{0}/*", home.display())
}

/// The unpacked compiler does not find its libraries by itself.
fn protoc_wrapper(tree: &Path) -> Result<PathBuf> {
    existing(tree.join("usr/bin/protoc"))?;
    let wrapper = tree.join("protoc");
    let libraries = fs::read_dir(tree.join("usr/lib")).context("no libraries in the package")?;
    let libraries = libraries.flatten().map(|entry| entry.path()).find(|path| path.join("libprotoc.so.32").exists());
    let libraries = libraries.context("no libprotoc.so.32 in the package")?;
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.display(),
        tree.join("usr/bin/protoc").display()
    );
    // Others may be running the wrapper at this moment.
    if fs::read_to_string(&wrapper).is_ok_and(|present| present == script) {
        return Ok(wrapper);
    }
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

fn existing(path: PathBuf) -> Result<String> {
    anyhow::ensure!(path.exists(), "{} is missing", path.display());
    Ok(text(path))
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jars_of_a_release_are_found_by_java_wildcards() {
        assert_eq!(jars_of(Path::new("/opt/zk")), "/opt/zk/lib/*:/opt/zk/*");
    }

    #[test]
    fn every_recipe_says_what_to_do_without_debian() {
        assert!(RECIPES.iter().all(|recipe| recipe.by_hand.contains("set ") && !recipe.packages.is_empty()));
    }

    #[test]
    fn a_tree_without_the_program_is_an_error() {
        let nowhere = Path::new("/nonexistent");
        for recipe in &RECIPES {
            assert!((recipe.in_tree)(nowhere).is_err(), "{}", recipe.name);
        }
    }
}
