//! Histories that nobody has recorded: what is read is written and read again as the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use storage_testkit::{fuzz::fuzz, history::History};

/// Those of docs/histories.md.
const HISTORY: &str = r#"{"format":"storage-history","version":1}
{"process":0,"start":1200,"end":5300,"key":"a","action":"put","value":"1","outcome":"ok","version":"2f"}
{"process":1,"start":4000,"end":9000,"key":"a","action":"put","value":"2","if":{"version":"2f"},"outcome":"conflict","seen":null}
{"process":1,"start":9100,"end":9900,"key":"a","action":"read","outcome":"ok","seen":{"value":"1","version":"2f"}}
{"process":0,"start":9200,"key":"a","action":"delete","if":"exists","outcome":"unknown"}
{"fault":"kill","target":"n1, which led","start":5100,"end":9800}
"#;

#[test]
fn fuzz_histories() {
    fuzz("histories", [HISTORY.as_bytes().to_vec()], |input| {
        let history = History::read(input).map_err(|error| error.to_string())?;
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        assert_eq!(History::read(&written[..]).unwrap(), history);
        Ok(String::new())
    });
}
