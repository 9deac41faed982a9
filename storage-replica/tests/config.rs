//! Configuration files: what is read of them, and what is said of those that are wrong, word by word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, time::Duration};

use storage_replica::config::{ClientTls, Config, Engine, Format, LogLevel, LogOutput, Mistake, Mistakes, Settings};
use storage_testkit::fuzz::fuzz;

fn parse(text: &str) -> Result<(Config, Vec<Mistake>), Mistakes> {
    Config::parse(text, Format::of(Path::new("file"), text), |_| None)
}

fn settings(text: &str, replica: Option<u64>) -> Settings {
    parse(text).unwrap().0.settings(replica).unwrap()
}

/// What is said of a text: mistakes, or else warnings.
fn said(text: &str) -> String {
    match parse(text) {
        Ok((_, warnings)) => warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
        Err(mistakes) => format!("{mistakes}\n"),
    }
}

/// A file of one node with these lines, of which the first is the sixth of the file.
fn with(lines: &str) -> String {
    format!(
        "token = \"t\"\n[[replicas]]\nid = 1\nstart_node = true\nnode_name = \"n1\"\n{lines}\n\
         client_url = \"http://a:1\"\npeer_url = \"http://a:2\"\n"
    )
}

#[test]
fn the_annotated_example_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster.example.toml");
    let (config, warnings) = Config::load(path).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        config.replicas().iter().map(|row| (row.id, row.node.is_some())).collect::<Vec<_>>(),
        [(1, true), (2, true), (3, false), (4, true), (5, false)]
    );

    let fourth = config.settings(Some(4)).unwrap();
    let node = fourth.node.unwrap();
    assert_eq!((node.name.as_str(), node.engine), ("n3", Engine::Embedded));
    assert_eq!(node.data_dir, Path::new("/var/lib/channels/n3"));
    let cluster = "n1=https://10.0.1.1:2380,n2=https://10.0.1.2:2380,n3=https://10.0.1.4:2380";
    assert_eq!(node.cluster.to_string(), cluster);
    let endpoints: Vec<_> = fourth.endpoints.iter().map(|url| url.authority()).collect();
    assert_eq!(endpoints, ["10.0.1.4:2379", "10.0.1.1:2379", "10.0.1.2:2379"], "its own first");

    let fifth = config.settings(Some(5)).unwrap();
    assert!(fifth.node.is_none());
    assert_eq!(fifth.endpoints.len(), 3);

    let reason = config.settings(Some(9)).unwrap_err();
    assert_eq!(reason, "there is no replica 9 in the table, only 1, 2, 3, 4, 5");
    assert!(config.settings(None).unwrap_err().contains("say which is meant"));
}

#[test]
fn json_says_the_same_as_toml() {
    let json = r#"{
        "token": "t", "engine": "etcd", "data_dir": "/d", "startup_timeout": "1m30s", "log_level": "warn",
        "log_outputs": ["stdout", "/log"],
        "replicas": [
            {"id": 1, "start_node": true, "node_name": "n1", "client_url": "http://a:1", "peer_url": "http://a:2"},
            {"id": 2, "start_node": "no"}
        ]
    }"#;
    let node = settings(json, Some(1)).node.unwrap();
    assert_eq!((node.engine, node.data_dir.as_path()), (Engine::Etcd, Path::new("/d/n1")));
    let second = settings(json, Some(2));
    assert_eq!(second.startup_timeout, Duration::from_secs(90));
    assert_eq!(second.log.level, LogLevel::Warn);
    assert_eq!(second.log.outputs, [LogOutput::Stdout, LogOutput::File("/log".into())]);
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_with_its_line() {
    let text = r#"tokn = "t"
startup_timeout = "soon"
log_levl = "info"

[[replicas]]
id = 1
start_node = "yes"
node_name = "n1"
client_url = "http://10.0.1.1:2379"
peer_url = "http://10.0.1.1:2380"

[[replicas]]
id = 1
start_node = "perhaps"

[[replicas]]
id = 2
start_node = "yes"
node_name = "n1"
client_url = "10.0.1.2:2379"
peer_url = "http://10.0.1.1:2379"
"#;
    let expected = "\
line 1: there is no key `tokn`, did you mean `token`?
line 1: there is no `token` and no `token_file`: draw a secret that no other cluster has, `openssl rand -hex 32`
line 2: `startup_timeout`: `soon` is no duration: it is written 500ms, 15s, 1m30s
line 3: there is no key `log_levl`, did you mean `log_level`?
line 13: replica 1 is there already, in line 6
line 14: `start_node` is yes or no, not text
line 19: a node `n1` is there already, in line 8
line 20: `client_url`: `10.0.1.2:2379` is no URL: it is written http://HOST:PORT or https://HOST:PORT
line 21: http://10.0.1.1:2379 is a `client_url` already, in line 9: each needs a port of its own
";
    assert_eq!(said(text), expected);
}

#[test]
fn each_mistake_has_words_of_its_own() {
    let node = "\"id\": 1, \"start_node\": true, \"node_name\": \"n1\"";
    let cases: Vec<(String, &str)> = vec![
        ("token = ".into(), "line 1: this is no TOML: "),
        ("token = \"t\"\nengine = \"etcd\"\ntoken = \"u\"".into(), "line 3: this is no TOML: duplicate key"),
        ("{\"token\": \"t\",\n}".into(), "line 1: this is no JSON: "),
        ("{".into(), "line 1: this is no JSON: "),
        (
            "".into(),
            "line 1: there is no `token` and no `token_file`: draw a secret that no other cluster has, `openssl rand -hex 32`\n\
                     line 1: there are no `replicas`: list each with its `id` and `start_node`\n",
        ),
        (
            "{\"token\": \"t\",\n\"token\": \"u\", \"replicas\": []}".into(),
            "line 2: `token` stands there twice, first in line 1\n",
        ),
        ("token = \" \"\nreplicas = []".into(), "line 1: `token`: a token has at least one character"),
        ("token = 5\nreplicas = []".into(), "line 1: `token` is text, not a number\n"),
        ("token = \"t\"\nreplicas = []".into(), "no replica starts a node, so there is no cluster"),
        ("token = \"t\"\nreplicas = [7]".into(), "line 2: a replica is a table, not a number\n"),
        ("token = \"t\"\n[[replicas]]\nstart_node = false".into(), "line 2: this replica has no `id`\n"),
        (
            "token = \"t\"\n[[replicas]]\nid = 1".into(),
            "line 2: this replica does not say whether it starts a node: \
                                                        `start_node` is yes or no\n",
        ),
        (
            "token = \"t\"\n[[replicas]]\nid = -1\nstart_node = 1".into(),
            "line 3: `id`: a replica's id is not negative\n\
                                                                       line 4: `start_node` is yes or no, not a number\n",
        ),
        (
            "token = \"t\"\n[[replicas]]\nid = 1\nstart_node = true".into(),
            "line 2: a replica that starts a node needs `node_name`\n\
            line 2: a replica that starts a node needs `client_url`\nline 2: a replica that starts a node needs `peer_url`\n",
        ),
        (
            format!("engine = \"etdc\"\n{}", with("")),
            "line 1: `engine`: there is no engine `etdc`, only `embedded` and `etcd`, \
                                                      did you mean `etcd`?\n",
        ),
        (
            format!("log_level = \"trace\"\n{}", with("")),
            "line 1: `log_level`: there is no level `trace`, only debug, info, warn and error",
        ),
        (format!("log_outputs = [1]\n{}", with("")), "line 1: `log_outputs` is a list of texts, not of a number\n"),
        (format!("data_dir = \"\"\n{}", with("")), "line 1: `data_dir`: a path has at least one character\n"),
        (with("peer_urls = \"\""), "line 6: there is no key `peer_urls`, did you mean `peer_url`?\n"),
        (
            with("").replace("http://a:2", "http://a:1"),
            "line 8: http://a:1 is a `client_url` already, in line 7: each needs a port of its own\n",
        ),
        (
            with("").replace("http://a:2", "https://a:2"),
            "line 2: an https peer URL needs a certificate and its key: `peer_cert_file` and `peer_key_file`, or \
             `cert_file` and `key_file`, in `[tls]` or here\n",
        ),
        (
            with("cert_file = \"c\"\nkey_file = \"k\"").replace("http://a:2", "https://a:2"),
            "line 2: an https peer URL needs `peer_trusted_ca_file` or `trusted_ca_file`, which signs the certificates of nodes, \
             in `[tls]` or here\n",
        ),
        (format!("{}[tls]\ncert_fiel = \"c\"", with("")), "there is no key `cert_fiel`, did you mean `cert_file`?"),
        (format!("tls = 5\n{}", with("")), "line 1: `tls` is a table, not a number\n"),
        (with("").replace("n1", "../n1"), "line 5: `node_name`: `../n1` is no name of a node"),
        (
            format!(
                "{{\"token\": \"t\", \"replicas\": [\n{{{node}, \"client_url\": \"http://a:1\",\n\"peer_url\": null}}]}}"
            ),
            "line 3: `peer_url` is text, not null\n",
        ),
    ];
    for (text, expected) in cases {
        let said = said(&text);
        assert!(said.contains(expected), "{text}\nsays\n{said}\nnot\n{expected}");
    }
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let second = "[[replicas]]\nid = 2\nstart_node = true\nnode_name = \"n2\"\nclient_url = \"http://b:1\"\npeer_url = \"http://b:2\"\n";
    assert_eq!(said(&with("")), "");
    assert_eq!(
        said(&format!("{}{second}", with(""))),
        "warning: line 2: 2 nodes survive the loss of 0, as 1 would: an odd number is better\n"
    );
    assert_eq!(
        said(&format!("{}{}", with(""), second.replace("true", "false").replace("client_url = \"http://b:1\"\n", ""))),
        "warning: line 9: this replica starts no node, so its `node_name` is not used\n\
         warning: line 9: this replica starts no node, so its `peer_url` is not used\n"
    );
}

#[test]
fn the_environment_stands_over_the_file() {
    let variables = |name: &str| {
        let value = match name {
            "SNET_STORAGE_TOKEN" => "other",
            "SNET_STORAGE_DATA_DIR" => "/elsewhere",
            "SNET_STORAGE_ENGINE" => "etcd",
            "SNET_STORAGE_LOG_OUTPUTS" => "stderr,/log",
            _ => return None,
        };
        Some(value.to_owned())
    };
    // Also over what would be a mistake.
    let text = format!("engine = 5\n{}", with(""));
    let (config, _) = Config::parse(&text, Format::Toml, variables).unwrap();
    let settings = config.settings(Some(1)).unwrap();
    assert_eq!(settings.log.outputs, [LogOutput::Stderr, LogOutput::File("/log".into())]);
    let node = settings.node.unwrap();
    assert_eq!((node.token.as_str(), node.engine), ("other", Engine::Etcd));
    assert_eq!(node.data_dir, Path::new("/elsewhere/n1"));

    // Certificates, also where the file has no table for them.
    let variables = |name: &str| match name {
        "SNET_STORAGE_CERT_FILE" => Some("/c".to_owned()),
        "SNET_STORAGE_KEY_FILE" => Some("/k".to_owned()),
        "SNET_STORAGE_TRUSTED_CA_FILE" => Some("/ca".to_owned()),
        _ => None,
    };
    let text = with("key_file = \"/own\"").replace("http:", "https:");
    for text in [text.clone(), format!("{text}[tls]\ncert_file = \"/other\"")] {
        let (config, _) = Config::parse(&text, Format::Toml, variables).unwrap();
        let settings = config.settings(Some(1)).unwrap();
        let files = settings.node.unwrap().tls.peer().unwrap();
        assert_eq!((files.cert, files.key, files.ca), ("/c".into(), "/own".into(), Some("/ca".into())));
        assert_eq!(settings.client_tls.identity, Some(("/c".into(), "/own".into())));
    }

    let wrong = |name: &str| (name == "SNET_STORAGE_ENGINE").then(|| "raft".to_owned());
    let mistakes = Config::parse(&with(""), Format::Toml, wrong).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "variable SNET_STORAGE_ENGINE: `engine`: there is no engine `raft`, only `embedded` and `etcd`"
    );
}

/// As the original daemon's documentation has it.
const DAEMON: &str = r#"{
    "daemon_end_point": "127.0.0.1:7000",
    "payment_channel_storage_type": "etcd",
    "PAYMENT_CHANNEL_STORAGE_CLIENT": {
        "connection_timeout": "5s",
        "request_timeout": "3s",
        "endpoints": ["http://127.0.0.1:2379", "http://127.0.0.2:2379"]
    },
    "payment_channel_storage_server": {
        "id": "storage-1",
        "scheme": "http",
        "host" : "127.0.0.1",
        "client_port": 2379,
        "PEER_PORT": 2380,
        "token": "unique-token",
        "cluster": "storage-1=http://127.0.0.1:2380,storage-2=http://127.0.0.2:2380,storage-3=http://127.0.0.3:2380",
        "startup_timeout": "15s",
        "data_dir": "storage-data-dir-1.etcd",
        "log_level": "warn",
        "log_outputs": ["./etcd-server.log"],
        "enabled": true
    }
}"#;

#[test]
fn a_file_of_the_original_daemon_is_read() {
    assert_eq!(
        said(DAEMON),
        "warning: line 4: `connection_timeout` is not used: each call has a deadline of its own, within which it connects\n\
         warning: line 4: `request_timeout` is not used: each call has a deadline of its own\n"
    );
    let settings = settings(DAEMON, None);
    assert_eq!(settings.startup_timeout, Duration::from_secs(15));
    let endpoints: Vec<_> = settings.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["http://127.0.0.1:2379", "http://127.0.0.2:2379"]);
    let node = settings.node.unwrap();
    assert_eq!((node.name.as_str(), node.token.as_str()), ("storage-1", "unique-token"));
    assert_eq!(node.client_url.to_string(), "http://127.0.0.1:2379");
    assert_eq!(node.peer_url.to_string(), "http://127.0.0.1:2380");
    assert_eq!(node.cluster.members().len(), 3);
    assert_eq!(node.data_dir, Path::new("storage-data-dir-1.etcd"));
    assert_eq!(node.log.level, LogLevel::Warn);
    assert_eq!(node.log.outputs, [LogOutput::File("./etcd-server.log".into())]);
    assert!(parse(DAEMON).unwrap().0.settings(Some(1)).unwrap_err().contains("no id"));
}

#[test]
fn a_daemon_that_starts_no_node_is_a_client() {
    let disabled = DAEMON.replace("\"enabled\": true", "\"enabled\": false");
    let settings = settings(&disabled, None);
    assert!(settings.node.is_none());
    assert_eq!(settings.endpoints.len(), 2);
    // What is not there has the daemon's defaults.
    let least = r#"{"payment_channel_storage_server": {"enabled": true}}"#;
    let node = self::settings(least, None).node.unwrap();
    assert_eq!(node.cluster.to_string(), "storage-1=http://127.0.0.1:2380");
}

#[test]
fn mistakes_in_a_file_of_the_original_daemon_are_told_too() {
    let text = DAEMON
        .replace("\"cluster\": \"storage-1=", "\"cluster\": \"storage-7=")
        .replace("\"PEER_PORT\": 2380", "\"PEER_PORT\": 2379")
        .replace("\"scheme\": \"http\"", "\"scheme\": \"ftp\"")
        .replace("\"log_level\": \"warn\"", "\"loglevel\": \"warn\"")
        .replace("127.0.0.2:2379", "127.0.0.2")
        .replace("\"15s\"", "15");
    let expected = "\
line 7: `endpoints`: `http://127.0.0.2` has no port: it is written http://HOST:PORT or https://HOST:PORT
line 11: `scheme` is `http` or `https`, not `ftp`
line 14: `client_port` and `peer_port` are the same: each needs a port of its own
line 16: `cluster` has no node `storage-1`, only storage-7, storage-2, storage-3
line 17: `startup_timeout` is text, not a number
";
    assert_eq!(said(&text), expected);
    let disabled = r#"{"payment_channel_storage_server": {"enabled": false}}"#;
    assert_eq!(
        said(disabled),
        "line 1: no node is started, so `payment_channel_storage_client` needs `endpoints`, the client URLs of nodes\n"
    );
}

/// The daemon starts a node where the section is there and does not say otherwise, and passes over keys that it does not know.
#[test]
fn a_file_of_the_original_daemon_is_read_as_the_daemon_reads_it() {
    let read = |text: &str| {
        let (config, warnings) = Config::parse(text, Format::Json, |_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        (config.settings(None).unwrap(), warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for text in [
        r#"{"payment_channel_storage_server": {}}"#,
        r#"{"PAYMENT_CHANNEL_STORAGE_SERVER": {"DATA_DIR": "/etcd/", "CLIENT_PORT": 2379}}"#,
    ] {
        let (settings, warnings) = read(text);
        assert_eq!(settings.node.unwrap().name, "storage-1", "{text}");
        assert_eq!(warnings, [] as [String; 0], "{text}");
    }
    let client = r#"{"payment_channel_storage_client": {"type": "etcd", "connection_timeout": "5s", "request_timeout": "3s",
        "hot_reload": true, "endpoints": ["https://127.0.0.1:2379"]},
        "PAYMENT_CHANNEL_CA_PATH": "/ca.pem", "payment_channel_cert_path": "/c.pem", "payment_channel_key_path": "/k.pem"}"#;
    let (settings, warnings) = read(client);
    assert!(settings.node.is_none());
    let identity = Some(("/c.pem".into(), "/k.pem".into()));
    assert_eq!(settings.client_tls, ClientTls { ca: Some("/ca.pem".into()), identity, login: None });
    for expected in ["no key `type`", "`connection_timeout` is not used", "`request_timeout`", "`hot_reload`"] {
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected}: {warnings:?}");
    }
    let half = client.replace(r#", "payment_channel_key_path": "/k.pem""#, "");
    let wrong = Config::parse(&half, Format::Json, |_| None).unwrap_err().to_string();
    assert!(wrong.contains("belong together"), "{wrong}");
    let neither = Config::parse(r#"{"DAEMON_END_POINT": "http://127.0.0.1:6207"}"#, Format::Json, |_| None);
    let wrong = neither.unwrap_err().to_string();
    assert!(wrong.contains("payment_channel_storage_server") && wrong.contains("endpoints"), "{wrong}");
}

#[test]
fn a_table_membership_makes_each_replica_one_that_may_have_a_node() {
    use storage_replica::config::{Bootstrap, Timing, parse_bootstrap};
    let rows: String = (1..=2)
        .map(|id| {
            format!(
                "[[replicas]]\nid = {id}\nnode_name = \"r{id}\"\nclient_url = \"http://a:{id}\"\npeer_url = \"http://b:{id}\"\n"
            )
        })
        .collect();
    let text = format!("token = \"t\"\n[membership]\ndead_after = \"10s\"\n{rows}");
    let (config, warnings) = parse(&text).unwrap();
    assert_eq!(warnings, [], "an even number is no matter here");
    assert!(config.grows());
    let growing = config.growing(2, Bootstrap::Join).unwrap().membership;
    assert_eq!((growing.replica.id, growing.replicas.len(), growing.replica.name.as_str()), (2, 2, "r2"));
    assert_eq!(growing.timing, Timing { dead_after: Duration::from_secs(10), ..Timing::default() });
    assert_eq!(growing.timing.heartbeat(), Duration::from_secs(1));
    assert!(config.growing(3, Bootstrap::Join).unwrap_err().contains("no replica 3"));
    assert_eq!(parse_bootstrap("quorum"), Ok(Bootstrap::Quorum));
    assert!(parse_bootstrap("qorum").unwrap_err().contains("only join, new and quorum, did you mean `quorum`?"));

    let wrong = said(&text.replace("dead_after", "dead_aftr"));
    assert!(wrong.contains("there is no key `dead_aftr`") && wrong.contains("dead_after"), "{wrong}");
    let without = text.replace("[membership]\ndead_after = \"10s\"\n", "");
    assert!(said(&without).contains("does not say whether it starts a node"), "{}", said(&without));
}

/// A secret is better in a file of its own, which the replicas that start no node need not have.
#[test]
fn the_token_is_in_a_file_or_in_the_environment() {
    use storage_replica::config::check_token;
    let dir = tempfile::tempdir().unwrap();
    let (file, missing) = (dir.path().join("token"), dir.path().join("missing"));
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let text = |file: &Path| with("").replace("token = \"t\"", &format!("token_file = {file:?}"));
    let token = |text: &str, variables: &[(&str, &str)]| {
        let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        let (config, _) = Config::parse(text, Format::Toml, variable).unwrap();
        config.settings(Some(1)).unwrap().node.unwrap().token
    };
    let found = file.to_str().unwrap();
    let inside = "SNET_STORAGE_TOKEN";
    for (text, variables, expected) in [
        (text(&file), vec![], "0123456789abcdef"),
        (text(&missing), vec![(inside, "of the environment")], "of the environment"),
        (with(""), vec![("SNET_STORAGE_TOKEN_FILE", found)], "0123456789abcdef"),
        (with(""), vec![], "t"),
    ] {
        assert_eq!(token(&text, &variables).as_str(), expected, "{text}");
    }
    assert!(token(&text(&missing), &[]).check().unwrap_err().contains("cannot read"));
    let both = with("").replace("token = \"t\"", "token = \"t\"\ntoken_file = \"f\"");
    assert!(said(&both).contains("line 1: there is one token, in `token` or in `token_file`"), "{}", said(&both));

    // What keeps nobody out is not started where others can reach it.
    let (near, far) = (["http://127.0.0.1:1", "http://localhost:2"], ["http://127.0.0.1:1", "http://10.0.1.1:2"]);
    for (word, urls, expected) in [
        ("t", near, None),
        ("unique-token", near, None),
        (
            "t",
            far,
            Some("the token has 1 bytes, and 16 are the least, and others can reach http://10.0.1.1:2: draw one"),
        ),
        ("unique-token", far, Some("an example that stands in documents")),
        ("0123456789abcdef", far, None),
    ] {
        let urls: Vec<_> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let refused = check_token(&word.parse().unwrap(), &urls).err();
        assert_eq!(refused.is_some(), expected.is_some(), "{word}: {refused:?}");
        assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{word}");
    }
}

/// That others can open a file is told with the command that ends it: of the token's own, and of this one if the token stands in it.
#[test]
fn a_token_that_others_can_read_is_warned_of() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("cluster.toml"), dir.path().join("token"));
    let write = |path: &Path, text: &str, mode: u32| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let (_, warnings) = Config::load(&file).unwrap();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    write(&file, &with(""), 0o600);
    assert_eq!(warnings(), "");
    write(&file, &with(""), 0o644);
    assert!(
        warnings()
            .contains(&format!("line 1: the token stands here, and others than its owner can open {}", file.display()))
    );
    assert!(warnings().contains(&format!("chmod 600 {}", file.display())), "{}", warnings());
    write(&token, "0123456789abcdef", 0o600);
    write(&file, &with("").replace("token = \"t\"", &format!("token_file = {token:?}")), 0o644);
    assert_eq!(warnings(), "", "there is no secret in it");
    write(&token, "0123456789abcdef", 0o604);
    assert!(warnings().contains(&format!("chmod 600 {}", token.display())), "{}", warnings());
}

/// Found by the test below: it was refused without a word.
#[test]
fn a_daemon_whose_host_is_none_and_has_no_cluster_is_told_so() {
    let cluster = DAEMON.lines().find(|line| line.contains("\"cluster\"")).unwrap();
    for host in ["", "a b"] {
        let text = DAEMON.replace(cluster, "").replace(r#""host" : "127.0.0.1""#, &format!(r#""host": "{host}""#));
        let said = said(&text);
        assert!(said.contains("`id`, `host` and `peer_port` name no node: "), "{host:?}: {said}");
    }
}

/// A text is read, or what is wrong with it is said. What is read of it says of each replica what it is, or why not.
#[test]
fn fuzz_configurations() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster.example.toml");
    let example = std::fs::read_to_string(example).unwrap();
    let json = r#"{"token": "t", "startup_timeout": "1m30s", "replicas": [{"id": 1, "start_node": true, "node_name": "n1",
        "client_url": "http://a:1", "peer_url": "http://a:2"}]}"#;
    for (name, sample) in [("toml", &example[..]), ("a line", &with("")[..]), ("json", json), ("daemon", DAEMON)] {
        fuzz(&format!("configuration: {name}"), [sample.as_bytes().to_vec()], |input| {
            let (config, _) = parse(&String::from_utf8_lossy(input)).map_err(|mistakes| {
                assert!(!mistakes.to_string().trim().is_empty(), "it is refused without a word");
                mistakes.to_string()
            })?;
            let mut settings = config.replicas().iter().map(|row| config.settings(Some(row.id)));
            settings.find_map(Result::err).map_or(Ok(String::new()), Err)
        });
    }
}
