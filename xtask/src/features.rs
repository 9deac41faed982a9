//! The facade's cargo features: each builds alone, and brings nothing of another backend.

use anyhow::{Context, Result, ensure};

use crate::{run, tidy};

/// The crate with one feature a backend.
const FACADE: &str = "storage";

/// The features of single backends, and what nobody needs but that backend: its client library or engine.
const CLIENTS: [(&str, &[&str]); 4] = [
    ("embedded", &["openraft"]),
    ("etcd", &["etcd-client", "tonic"]),
    ("consul", &["storage-consul"]),
    ("zk", &["zookeeper-client"]),
];

/// Builds the facade with each feature alone, and looks at what those of single backends bring.
pub(crate) fn check() -> Result<()> {
    build_alone(None)?;
    features()?.iter().try_for_each(|feature| build_alone(Some(feature)))?;
    bring_their_own_alone()
}

fn build_alone(feature: Option<&str>) -> Result<()> {
    println!("{FACADE} with {}", feature.unwrap_or("no feature"));
    let mut check = run::cargo();
    check.args(["check", "--quiet", "--package", FACADE, "--no-default-features"]);
    check.args(feature.map(|feature| format!("--features={feature}")));
    run::loudly(&mut check)
}

fn features() -> Result<Vec<String>> {
    let metadata = tidy::metadata()?;
    let package = metadata.get("packages").and_then(serde_json::Value::as_array).into_iter().flatten();
    let facade = package.into_iter().find(|package| package.get("name").is_some_and(|name| name == FACADE));
    let features = facade.and_then(|facade| facade.get("features")?.as_object()).context("no facade")?;
    Ok(features.keys().filter(|feature| *feature != "default").cloned().collect())
}

/// Whoever takes one backend builds the client library of no other.
fn bring_their_own_alone() -> Result<()> {
    for (feature, own) in CLIENTS {
        let packages = packages_with(feature)?;
        for (other, clients) in CLIENTS {
            for client in clients {
                let brought = packages.iter().any(|package| package == client);
                ensure!(
                    brought || other != feature,
                    "the feature `{feature}` does not bring {client}: name what it does"
                );
                ensure!(!brought || own.contains(client), "the feature `{feature}` brings {client}, of `{other}`");
            }
        }
    }
    Ok(())
}

/// The names of all packages that are built for the facade with this feature.
fn packages_with(feature: &str) -> Result<Vec<String>> {
    let mut tree = run::cargo();
    tree.args(["tree", "--package", FACADE, "--no-default-features", "--features", feature]);
    tree.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let tree = String::from_utf8(run::quietly(&mut tree)?).context("a package has a strange name")?;
    Ok(tree.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facade_has_a_feature_for_every_backend() {
        let features = features().unwrap();
        for (backend, _) in CLIENTS {
            assert!(features.iter().any(|feature| feature == backend), "{features:?}");
        }
        assert!(!features.iter().any(|feature| feature == "default"));
    }

    #[test]
    fn a_feature_brings_no_client_of_another_backend() {
        bring_their_own_alone().unwrap();
    }
}
