//! What a source file uses of its own crate, read from its words: enough of Rust's grammar for paths, and not a parser.

use std::collections::BTreeMap;

/// The names from the crate's root to a module or an item in it.
pub(super) type Path = Vec<String>;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// The paths into the crate that are used, with their lines.
    pub(super) used: Vec<(Path, usize)>,
    /// What the names mean that `use` brings into the module.
    pub(super) names: BTreeMap<String, Path>,
    /// Modules that only tests have, in files of their own.
    pub(super) test_modules: Vec<String>,
}

/// Reads a file that is the module `module`. What only tests have is left out.
pub(super) fn read(text: &str, module: &[String], is_module: impl Fn(&[String]) -> bool) -> Imports {
    let words = words(text);
    let mut file = File { words: &words, at: 0, module, blocks: Vec::new(), is_module, found: Imports::default() };
    file.read();
    file.found
}

/// A name or a sign, and its line. `::` is one sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<'a> {
    text: &'a str,
    line: usize,
}

struct File<'a, F> {
    words: &'a [Word<'a>],
    at: usize,
    module: &'a [String],
    /// The open braces, with the name of the module that one opens.
    blocks: Vec<Option<&'a str>>,
    is_module: F,
    found: Imports,
}

impl<'a, F: Fn(&[String]) -> bool> File<'a, F> {
    fn read(&mut self) {
        while let Some(word) = self.word(0) {
            match word.text {
                "#" => self.attribute(),
                // Not `use<'a>`, which says what a type captures.
                "use" if self.text(1) != "<" => {
                    self.at += 1;
                    self.import(&mut Vec::new());
                }
                "mod" if self.text(2) == "{" => {
                    self.blocks.push(self.word(1).map(|name| name.text));
                    self.at += 3;
                }
                "crate" | "super" | "self" if self.text(1) == "::" && !self.is_visibility() => self.path(),
                text => {
                    match text {
                        "{" => self.blocks.push(None),
                        "}" => drop(self.blocks.pop()),
                        _ => {}
                    }
                    self.at += 1;
                }
            }
        }
    }

    fn word(&self, ahead: usize) -> Option<Word<'a>> {
        self.words.get(self.at + ahead).copied()
    }

    fn text(&self, ahead: usize) -> &'a str {
        self.word(ahead).map_or("", |word| word.text)
    }

    /// `pub(in crate::x)` names who may use something, and uses nothing.
    fn is_visibility(&self) -> bool {
        self.at
            .checked_sub(2)
            .and_then(|start| self.words.get(start..self.at))
            .is_some_and(|before| before.iter().map(|word| word.text).eq(["(", "in"]))
    }

    /// Behind an attribute, or behind its item if only tests have it.
    fn attribute(&mut self) {
        let start = self.at;
        self.at += if self.text(1) == "!" { 2 } else { 1 };
        self.skip_group();
        let has = |word| self.words.get(start..self.at).is_some_and(|words| words.iter().any(|one| one.text == word));
        if !(has("cfg") && has("test")) || has("not") || self.text(0).is_empty() {
            return;
        }
        if self.text(0) == "mod" && self.text(2) == ";" {
            self.found.test_modules.push(self.text(1).to_owned());
        }
        loop {
            match self.text(0) {
                "" | "}" => return,
                ";" => return self.at += 1,
                "{" => return self.skip_group(),
                "(" | "[" => self.skip_group(),
                _ => self.at += 1,
            }
        }
    }

    /// From a bracket to behind the one that closes it.
    fn skip_group(&mut self) {
        let mut depth = 0_usize;
        while let Some(word) = self.word(0) {
            self.at += 1;
            match word.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// What follows `use`, or stands in its braces, behind the names in `path`.
    fn import(&mut self, path: &mut Vec<&'a str>) {
        let line = self.word(0).map_or(0, |word| word.line);
        let length = path.len();
        loop {
            match self.text(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.import(path);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                "::" => self.at += 1,
                "as" => {
                    self.note(path, self.text(1), line);
                    self.at += 2;
                    break;
                }
                "," | "}" | ";" | "" => {
                    self.note(path, path.last().copied().unwrap_or_default(), line);
                    break;
                }
                name => {
                    // `a::{self}` is `a`; and `*` brings names that nobody can tell.
                    if name != "*" && (name != "self" || path.is_empty()) {
                        path.push(name);
                    }
                    self.at += 1;
                }
            }
        }
        path.truncate(length);
    }

    /// A path in an expression or a type.
    fn path(&mut self) {
        let line = self.word(0).map_or(0, |word| word.line);
        let mut path = vec![self.text(0)];
        self.at += 1;
        while self.text(0) == "::" && self.text(1).starts_with(is_of_name) {
            path.push(self.text(1));
            self.at += 2;
        }
        self.note(&path, "", line);
    }

    fn note(&mut self, path: &[&str], name: &str, line: usize) {
        let Some(path) = self.absolute(path) else { return };
        if self.blocks.is_empty() && !name.is_empty() {
            self.found.names.insert(name.to_owned(), path.clone());
        }
        self.found.used.push((path, line));
    }

    /// The path from the crate's root. `None`: of another crate.
    fn absolute(&self, path: &[&str]) -> Option<Path> {
        let inside = self.blocks.iter().flatten().map(|name| (*name).to_owned());
        let mut absolute: Path = self.module.iter().cloned().chain(inside).collect();
        let mut rest = path;
        match rest.split_first()? {
            (&"crate", behind) => (absolute, rest) = (Path::new(), behind),
            (&"self", behind) => rest = behind,
            (&"super", _) => {
                while let Some((&"super", behind)) = rest.split_first() {
                    absolute.pop();
                    rest = behind;
                }
            }
            (child, _) => {
                let child: Path = absolute.iter().cloned().chain([(*child).to_owned()]).collect();
                if !(self.is_module)(&child) {
                    return None;
                }
            }
        }
        absolute.extend(rest.iter().map(|name| (*name).to_owned()));
        Some(absolute)
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names and signs of a source, without comments and literals.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let name = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if name > 0 {
            let behind = rest.get(name..).unwrap_or_default();
            match rest.get(..name) {
                Some("r" | "br" | "cr") if behind.trim_start_matches('#').starts_with('"') => name + raw_string(behind),
                Some(word) => {
                    words.push(Word { text: word, line });
                    name
                }
                None => name,
            }
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            character_or_lifetime(rest)
        } else {
            let length = if rest.starts_with("::") { 2 } else { c.len_utf8() };
            words.extend(rest.get(..length).filter(|_| !c.is_whitespace()).map(|text| Word { text, line }));
            length
        };
        let (passed, behind) = rest.split_at(length);
        line += passed.matches('\n').count();
        rest = behind;
    }
    words
}

/// How long a comment is that may have others in it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") || rest.starts_with("*/") {
            depth = if rest.starts_with('/') { depth + 1 } else { depth - 1 };
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// How long a literal is from its first quote to its last.
fn string(text: &str) -> usize {
    let quote = text.chars().next();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if Some(c) == quote {
            return at + 1;
        }
    }
    text.len()
}

/// How long `##".."##` is, the literal behind the `r`.
fn raw_string(text: &str) -> usize {
    let hashes = text.find('"').unwrap_or_default();
    let end = format!("\"{}", "#".repeat(hashes));
    let content = text.get(hashes + 1..).unwrap_or_default();
    content.find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}

fn character_or_lifetime(text: &str) -> usize {
    let mut characters = text.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => string(text),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn used(module: &str, text: &str) -> Vec<(String, usize)> {
        let found = read(text, &path(module), |module| module == ["node", "calls"]);
        found.used.into_iter().map(|(path, line)| (path.join("::"), line)).collect()
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let text = "\
use std::io;
use crate::{
    log::{self, Log as Journal},
    raft::*,
};
use super::{Node, super::codec};
fn all() -> impl Iterator + use<> { self::inner(crate::host::blocking()) }
";
        let expected = [
            ("log", 3),
            ("log::Log", 3),
            ("raft", 4),
            ("node::Node", 6),
            ("codec", 6),
            ("node::run::inner", 7),
            ("host::blocking", 7),
        ];
        assert_eq!(used("node::run", text), expected.map(|(path, line)| (path.to_owned(), line)));
        let names = read(text, &path("node::run"), |_| false).names;
        assert_eq!(
            (&names["Journal"], &names["log"], &names["codec"]),
            (&path("log::Log"), &path("log"), &path("codec"))
        );
    }

    #[test]
    fn what_is_not_used_is_not_found() {
        for text in [
            "// crate::a\n/* crate::b /* crate::c */ */ pub(in crate::d) fn e() {}",
            "const A: &str = \"crate::a\\\"crate::b\"; const B: &str = r#\"crate::c\"crate::d\"#;",
            "fn a<'a>(b: &'a str) { b == \"crate::a\" || c == '\"' || d == '\\'' || \"crate::b\" }",
            "#[cfg(test)]\nmod tests { use crate::a; fn b() { crate::c() } }",
            "#[cfg(all(test, unix))]\nuse crate::a;\n#[cfg(test)]\nfn b(c: [u8; 3]) { crate::d() }",
            "use calls::Caller; use storage_core::Key;",
        ] {
            assert_eq!(used("log", text), [], "{text}");
        }
        assert_eq!(used("log", "#[cfg(not(test))]\nuse crate::a;"), [("a".to_owned(), 2)]);
    }

    #[test]
    fn modules_are_told_from_crates_and_from_those_of_tests() {
        let text = "mod calls;\n#[cfg(test)]\nmod tests;\nmod inner { use super::A; }\npub use calls::Caller;";
        let found = read(text, &path("node"), |module| module == ["node", "calls"]);
        assert_eq!(found.test_modules, ["tests"]);
        assert_eq!(found.names, BTreeMap::from([("Caller".to_owned(), path("node::calls::Caller"))]));
        assert_eq!(found.used, [(path("node::A"), 4), (path("node::calls::Caller"), 5)]);
    }
}
