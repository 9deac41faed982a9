//! docs/what-can-go-wrong.md quotes what the code says when it refuses: each quoted line stands in a source, word for word.

use std::path::PathBuf;

/// What stands between the parts of a message that are written in different places: before a cause, and between sentences.
const CAUSE: &str = ": ";
const SENTENCE: &str = ". ";

/// The broken rules, one sentence each. Quoted are the lines of fenced blocks.
pub(super) fn check(page: &str, sources: &[(PathBuf, String)]) -> Vec<String> {
    let said: Vec<_> = sources.iter().map(|(_, text)| normal(text)).collect();
    let is_said = |part: &str| {
        let part = normal(part);
        said.iter().any(|text| text.contains(&part))
    };
    let quoted = page.split("\n```").skip(1).step_by(2).flat_map(|block| block.lines().skip(1));
    let mut broken: Vec<_> = quoted
        .clone()
        .filter(|line| !is_said(line) && !line.split(CAUSE).flat_map(|part| part.split(SENTENCE)).all(is_said))
        .map(|line| format!("docs/what-can-go-wrong.md: no source says \"{line}\""))
        .collect();
    if quoted.count() == 0 {
        broken.push("docs/what-can-go-wrong.md: nothing is quoted".to_owned());
    }
    broken
}

/// A text with one mark for whatever is filled in, `{place:?}` in a source and CAPITALS in the page, and with each string in one line.
fn normal(text: &str) -> String {
    let joined: String = text
        .split("\\\n")
        .enumerate()
        .fold(String::new(), |all, (at, line)| all + if at == 0 { line } else { line.trim_start() });
    let joined = joined.replace("\\\"", "\"");
    let (mut found, mut rest) = (String::new(), joined.as_str());
    while let Some(next) = rest.chars().next() {
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside);
        let is_place = |inside: &&str| inside.chars().all(|c| c.is_ascii_alphanumeric() || "_:?.#".contains(c));
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let length = if let Some(inside) = inside.filter(is_place) {
            found.push_str("{}");
            inside.len() + 2
        } else if word.is_empty() {
            found.push(next);
            next.len_utf8()
        } else {
            found.push_str(if word.chars().any(|c| !c.is_ascii_uppercase()) { word } else { "{}" });
            word.len()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    fn check(line: &str) -> usize {
        let source = "format!(\n    \"node {id:x} says \\\"no\\\", \\\n     and {WHY}\"); \"it waits for {} s\" fn {} if x { y }";
        super::check(&format!("# A page\n\n```\n{line}\n```\n\nelse\n"), &[("a.rs".into(), source.to_owned())]).len()
    }

    #[test]
    fn a_quoted_line_stands_in_a_source_word_for_word() {
        for right in ["node ID says \"no\", and REASON", "it waits for N s: node ID says \"no\", and X"] {
            assert_eq!(check(right), 0, "{right}");
        }
        for wrong in ["node ID says no, and REASON", "node 3 says \"no\", and X", "it waits for N s: nobody knows"] {
            assert_eq!(check(wrong), 1, "{wrong}");
        }
        assert_eq!(super::check("nothing", &[]).len(), 1);
    }
}
