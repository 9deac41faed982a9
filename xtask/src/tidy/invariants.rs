//! ARCHITECTURE.md names for each invariant where it is asserted and in which words: that is true, and a test breaks it on purpose.

use std::path::PathBuf;

/// The part of ARCHITECTURE.md that lists them.
const SECTION: &str = "# Invariants";

/// Where an invariant is asserted.
#[derive(Debug, PartialEq)]
struct Asserted<'a> {
    /// The end of the file's path.
    file: &'a str,
    function: &'a str,
    /// What the panic says.
    words: &'a str,
}

/// The broken rules, one sentence each.
pub(super) fn check(architecture: &str, sources: &[(PathBuf, String)]) -> Vec<String> {
    let invariants = invariants(architecture);
    if invariants.is_empty() {
        return vec![format!("ARCHITECTURE.md: there are no invariants below `{SECTION}`")];
    }
    let check = |(number, text): (usize, &str)| {
        let named = named(text);
        let nowhere = format!("ARCHITECTURE.md: invariant {} does not say where it is asserted", number + 1);
        let nowhere = named.is_empty().then_some(nowhere);
        named.iter().filter_map(|asserted| broken(asserted, sources)).chain(nowhere).collect::<Vec<_>>()
    };
    invariants.into_iter().enumerate().flat_map(check).collect()
}

/// The items of the list below [`SECTION`].
fn invariants(architecture: &str) -> Vec<&str> {
    let from = architecture.find(SECTION).map_or("", |at| architecture.get(at + SECTION.len()..).unwrap_or_default());
    let section = from.split("\n#").next().unwrap_or_default();
    let mut starts: Vec<_> = (1..).map_while(|number| section.find(&format!("\n{number}. "))).collect();
    starts.push(section.len());
    starts.windows(2).filter_map(|window| section.get(*window.first()?..*window.last()?)).collect()
}

/// The places that one names, each written as `` `file.rs` `function`, "words" ``.
fn named(invariant: &str) -> Vec<Asserted<'_>> {
    let parts: Vec<_> = invariant.split('`').collect();
    let named = parts.windows(4).filter_map(|window| {
        let [file, " ", function, after] = window else { return None };
        // The words may stand on the next line.
        let words = after.strip_prefix(',')?.trim_start().strip_prefix('"')?.split('"').next()?;
        file.ends_with(".rs").then_some(Asserted { file, function, words })
    });
    named.collect()
}

fn broken(Asserted { file, function, words }: &Asserted<'_>, sources: &[(PathBuf, String)]) -> Option<String> {
    let asserts = |text: &str| {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        code.contains(&format!("fn {function}")) && code.contains(&format!("\"{words}"))
    };
    let is_broken_on_purpose = |text: &str| text.contains(&format!("#[should_panic(expected = \"{words}\")]"));
    if !sources.iter().any(|(path, text)| path.ends_with(file) && asserts(text)) {
        return Some(format!("ARCHITECTURE.md: {file} has no `fn {function}` that asserts \"{words}\""));
    }
    if !sources.iter().any(|(_, text)| is_broken_on_purpose(text)) {
        return Some(format!("ARCHITECTURE.md: no test breaks \"{words}\" on purpose"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHITECTURE: &str =
        "# Invariants\n\n1. It holds: `log/queue.rs` `finish`,\n   \"it is synced\".\n# Else\n`a.rs` `b`, \"c\"";

    fn check(code: &str, test: &str) -> Vec<String> {
        let sources = [("x/log/queue.rs", code), ("x/tests.rs", test)];
        super::check(ARCHITECTURE, &sources.map(|(path, text)| (path.into(), text.to_owned())))
    }

    #[test]
    fn an_invariant_is_asserted_where_it_says_and_broken_by_a_test() {
        let expected = Asserted { file: "log/queue.rs", function: "finish", words: "it is synced" };
        let [invariant] = invariants(ARCHITECTURE)[..] else { panic!("there is one") };
        assert_eq!(named(invariant), [expected]);
        let (code, test) =
            ("fn finish() { assert!(x, \"it is synced\") }", "#[should_panic(expected = \"it is synced\")]");
        assert_eq!(check(code, test), Vec::<String>::new());
        assert_eq!(check("fn finish() {}", test).len(), 1);
        assert_eq!(check("fn other() { assert!(x, \"it is synced\") }", test).len(), 1);
        assert_eq!(check(&format!("fn finish() {{}}\n#[cfg(test)]\nmod tests {{ {test} }}"), test).len(), 1);
        assert_eq!(check(code, "").len(), 1);
        assert_eq!(super::check("", &[]).len(), 1);
        assert_eq!(super::check("# Invariants\n\n1. It holds.\n2. So does it.\n", &[]).len(), 2);
    }
}
