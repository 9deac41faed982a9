//! Appends each verdict to a file that the environment names, for reports over several programs and backends.

use std::{env, fmt::Write as _, fs::OpenOptions, io, io::Write as _, time::Duration};

use super::case::{Case, Verdict};

/// Names the file that verdicts are appended to.
const REPORT: &str = "STORAGE_CONFORMANCE_REPORT";

/// Appends one line of JSON to the file that the environment names, if it names one.
///
/// One write of a whole line, so that tests in parallel, and in several processes, do not mix their lines.
pub(super) fn append(backend: &str, nodes: usize, case: &Case, verdict: &Verdict, elapsed: Duration) -> io::Result<()> {
    let Some(path) = env::var_os(REPORT) else { return Ok(()) };
    let line = line(backend, nodes, case, verdict, elapsed);
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn line(backend: &str, nodes: usize, case: &Case, verdict: &Verdict, elapsed: Duration) -> String {
    let (backend, case) = (quoted(backend), quoted(&case.to_string()));
    let (kind, reason, millis) = (quoted(verdict.kind()), quoted(verdict.reason()), elapsed.as_millis());
    format!(
        "{{\"backend\":{backend},\"nodes\":{nodes},\"case\":{case},\"verdict\":{kind},\"reason\":{reason},\"millis\":{millis}}}\n"
    )
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\u{0}'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::case::Kind;

    #[test]
    fn a_line_is_json_whatever_the_reason_holds() {
        let case = Case { group: "basics", name: "get_absent", kind: Kind::Usual, run: |_| Box::pin(async { Ok(()) }) };
        let verdict = Verdict::Failed("say \"no\"\n\\ \u{1f600}".to_owned());
        assert_eq!(
            line("etcd", 3, &case, &verdict, Duration::from_millis(12)),
            "{\"backend\":\"etcd\",\"nodes\":3,\"case\":\"basics::get_absent\",\"verdict\":\"failed\",\
             \"reason\":\"say \\\"no\\\"\\u000a\\\\ \u{1f600}\",\"millis\":12}\n"
        );
    }
}
