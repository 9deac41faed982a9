//! The arrows between the crates of the workspace (A -> B: A depends on B).

use serde_json::Value;

/// A crate and what it may depend on, in the product and besides that in tests.
struct Allowed {
    package: &'static str,
    normal: &'static [&'static str],
    dev: &'static [&'static str],
}

const fn allow(package: &'static str, normal: &'static [&'static str], dev: &'static [&'static str]) -> Allowed {
    Allowed { package, normal, dev }
}

const CORE: &[&str] = &["storage-core"];
const KIT: &[&str] = &["storage-testkit"];

/// ARCHITECTURE.md has the drawing. What is not here is forbidden: nothing depends on `snet` or `xtask`, no backend knows
/// another, and the product knows nothing of the test kit.
const ALLOWED: [Allowed; 18] = [
    allow("storage-core", &[], &[]),
    allow("storage-etcd", CORE, KIT),
    allow("storage-consul", CORE, KIT),
    allow("storage-zk", CORE, KIT),
    allow("storage-embedded", CORE, KIT),
    allow("storage-testkit", CORE, &[]),
    allow("storage", &["storage-core", "storage-embedded", "storage-etcd", "storage-consul", "storage-zk"], &[]),
    // What its tests ask it with is the client of etcd that the backend is.
    allow("storage-etcd-api", &["storage-core", "storage-embedded"], &["storage-testkit", "storage-etcd"]),
    allow("storage-membership", &["storage-core", "storage-embedded"], &[]),
    allow(
        "storage-replica",
        &["storage-core", "storage-embedded", "storage-etcd", "storage-etcd-api", "storage-membership"],
        KIT,
    ),
    // Its example shows the attack failing on a cluster, which the embedded engine has without a server. Its rules are tried on all.
    allow("payment-channels", CORE, &["storage-embedded", "storage-servers", "storage-testkit"]),
    allow("paid-service", &["payment-channels", "storage"], KIT),
    allow("storage-servers", &["storage", "storage-testkit"], &[]),
    allow("simulation", &["storage-core", "storage-embedded", "storage-testkit"], &[]),
    allow("bench", &["storage", "payment-channels", "storage-testkit", "storage-servers", "storage-replica"], &[]),
    allow(
        "soak",
        &["storage", "payment-channels", "storage-testkit", "storage-servers", "storage-replica", "bench"],
        &[],
    ),
    allow(
        "snet",
        &[
            "storage-core",
            "storage-embedded",
            "storage-etcd",
            "storage-consul",
            "storage-zk",
            "storage",
            "storage-membership",
            "storage-replica",
            "payment-channels",
            "storage-testkit",
            "bench",
            "soak",
        ],
        &[],
    ),
    allow("xtask", &[], &[]),
];

/// The arrows in `cargo metadata` that are not allowed, one sentence each.
pub(super) fn check(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let packages = metadata.get("packages").and_then(Value::as_array).unwrap_or(&empty);
    let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut broken = Vec::new();
    if ours.is_empty() {
        broken.push("cargo metadata knows no package".to_owned());
    }
    for package in packages {
        let from = name(package);
        let Some(allowed) = ALLOWED.iter().find(|allowed| allowed.package == from) else {
            broken.push(format!("{from} is a new crate: state its arrows in xtask/src/tidy/arrows.rs"));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).unwrap_or(&empty) {
            let to = name(dependency);
            let kind = dependency.get("kind").and_then(Value::as_str);
            let is_allowed =
                allowed.normal.contains(&to.as_str()) || (kind == Some("dev") && allowed.dev.contains(&to.as_str()));
            // A crate names itself to have one of its features on in its own tests; that is no arrow.
            if to != from && ours.contains(&to) && !is_allowed {
                broken.push(format!("{from} must not depend on {to} ({})", kind.unwrap_or("normal")));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(arrows: &[(&str, &str, Option<&str>)]) -> Value {
        let mut names: Vec<&str> = arrows.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
        names.retain(|name| !name.starts_with("crates.io/"));
        names.sort_unstable();
        names.dedup();
        let packages: Vec<Value> = names
            .iter()
            .map(|name| {
                let dependencies = arrows.iter().filter(|(from, ..)| from == name);
                let dependencies: Vec<Value> =
                    dependencies.map(|(_, to, kind)| json!({ "name": to, "kind": kind })).collect();
                json!({ "name": name, "dependencies": dependencies })
            })
            .collect();
        json!({ "packages": packages })
    }

    #[test]
    fn arrows_of_the_design_are_allowed() {
        let metadata = metadata(&[
            ("storage-etcd", "storage-core", None),
            ("storage-etcd", "storage-testkit", Some("dev")),
            ("storage-testkit", "storage-core", None),
            ("storage-core", "storage-core", Some("dev")),
            ("storage", "storage-etcd", None),
            ("snet", "bench", None),
            ("xtask", "crates.io/clap", None),
        ]);
        assert_eq!(check(&metadata), Vec::<String>::new());
    }

    #[test]
    fn any_other_arrow_is_reported() {
        let forbidden = [
            ("storage-core", "storage-etcd", None),
            ("storage-core", "storage-testkit", Some("dev")),
            ("storage-etcd", "storage-zk", None),
            ("storage-etcd", "storage-testkit", None),
            ("storage-testkit", "storage-etcd", Some("dev")),
            ("payment-channels", "storage", None),
            ("storage-membership", "storage-etcd-api", None),
            ("storage-etcd-api", "storage-replica", None),
            ("bench", "snet", None),
            ("snet", "xtask", Some("build")),
            ("xtask", "storage-testkit", None),
        ];
        for arrow in forbidden {
            let broken = check(&metadata(&[arrow]));
            assert_eq!(broken.len(), 1, "{arrow:?}");
            assert!(broken[0].starts_with(&format!("{} must not depend on {}", arrow.0, arrow.1)), "{broken:?}");
        }
    }

    #[test]
    fn a_new_crate_has_to_state_its_arrows() {
        let broken = check(&metadata(&[("storage-redis", "storage-core", None)]));
        assert!(broken[0].starts_with("storage-redis is a new crate"), "{broken:?}");
    }

    #[test]
    fn metadata_without_packages_is_no_success() {
        assert_eq!(check(&json!({})).len(), 1);
    }
}
