//! What a URL opens, and what is said about one that opens nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use storage::{Error, Key, ReadOptions, Store, StoreExt, open};

async fn value_of(store: &dyn Store, key: &Key) -> Option<Vec<u8>> {
    store.get(key, ReadOptions::default()).await.unwrap().map(|entry| entry.value.to_vec())
}

#[tokio::test]
async fn a_name_is_shared_and_no_name_is_private() {
    let key = Key::new("k").unwrap();
    let (one, other) = (open("mem:a-shared-name").await.unwrap(), open("mem:a-shared-name").await.unwrap());
    one.put(&key, "seen").await.unwrap();
    assert_eq!(value_of(&*other, &key).await, Some(b"seen".to_vec()));

    one.close().await.unwrap();
    assert_eq!(value_of(&*other, &key).await, Some(b"seen".to_vec()), "each handle is closed on its own");
    assert!(matches!(one.get(&key, ReadOptions::default()).await, Err(Error::Closed)));

    for elsewhere in ["mem:", "mem:", "mem:another-name"] {
        let store = open(elsewhere).await.unwrap();
        assert_eq!(value_of(&*store, &key).await, None, "{elsewhere}");
        store.put(&key, "its own").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_told_with_what_was_meant() {
    let cases = [
        ("", "no URL: "),
        ("/var/lib/channels", "known schemes: mem"),
        ("meme:", "did you mean `mem`?"),
        ("embeded:/var/lib/channels", "did you mean `embedded`?"),
        ("postgres://localhost", "known schemes: mem, embedded"),
        ("mem:?timeout=5", "has no parameter `timeout`"),
        ("mem:x?a=1", "it has none"),
        ("mem://host/x", "mem:NAME"),
        ("mem:/x", "mem:NAME"),
        ("etcd://user:secret@host:no-port", "no URL: invalid port"),
    ];
    for (url, expected) in cases {
        let Err(Error::InvalidArgument { reason }) = open(url).await else { panic!("{url} has to be refused") };
        assert!(reason.contains(expected), "{url}: {reason}");
        assert!(!reason.contains("secret"), "{reason}");
    }
    let Err(error) = open("postgres://localhost").await else { panic!("no such backend") };
    assert!(!error.to_string().contains("did you mean"), "nothing is near: {error}");
}

#[cfg(not(feature = "zk"))]
#[tokio::test]
async fn a_backend_that_was_not_built_in_names_its_feature() {
    let Err(Error::Unsupported { feature }) = open("zk://localhost:2181").await else { panic!("it is not built in") };
    assert!(feature.contains("the cargo feature `zk`"), "{feature}");
    assert!(!storage::schemes().any(|scheme| scheme == "zk"));

    let Err(error) = open("zk://a:1,b:2/root").await else { panic!("it is not built in") };
    assert!(matches!(error, Error::Unsupported { .. }), "several hosts are not what is wrong: {error}");
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_parameter_that_is_misspelt_is_suggested() {
    let Err(Error::InvalidArgument { reason }) = open("embedded:/nowhere?lisen=127.0.0.1:1").await else {
        panic!("there is no such parameter")
    };
    assert!(reason.contains("did you mean `listen`?"), "{reason}");
}

#[cfg(any(feature = "etcd", feature = "consul", feature = "zk"))]
#[tokio::test]
async fn each_of_several_hosts_reaches_the_backend() {
    for scheme in ["etcd", "consul", "zk"].into_iter().filter(|scheme| storage::schemes().any(|known| known == *scheme))
    {
        // Backends name the endpoint that they cannot use.
        for url in ["a:1,b:2,no host:3", "a,b,no host:3/x", "a,no host:3,c?endpoint=d:4"] {
            let url = format!("{scheme}://{url}");
            let Err(Error::InvalidArgument { reason }) = open(&url).await else { panic!("{url} has to be refused") };
            assert!(reason.contains("an endpoint is host:port, not `no host:3`"), "{url}: {reason}");
        }
    }
}
