//! Circles of modules within a crate.
//!
//! The modules of one folder, files and folders alike, import each other in one direction only. An import counts between the two modules of the
//! deepest folder that both ends are in: `node/calls.rs` that uses `crate::log::Log` is an arrow from `node` to `log`, and one that uses
//! `super::leader` an arrow from `node/calls` to `node/leader`. What a module takes from one that it is in counts for where that has it
//! from; what that defines itself is shared by all that is in it and counts for nothing, and so does what a module takes from those in it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    files,
    imports::{self, Imports},
};

/// How many imports are named for one arrow.
const NAMED: usize = 3;

/// The circles in all crates below `root`, one sentence each.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let manifests = files::files(root, "toml")?.into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let mut broken = Vec::new();
    for folder in manifests.filter_map(|manifest| Some(manifest.parent()?.to_owned())) {
        let sources = folder.join("src");
        if sources.is_dir() {
            broken.extend(circles(&Modules::read(&sources)?, folder.strip_prefix(root)?));
        }
    }
    Ok(broken)
}

/// A module's names from the crate's root.
type Module = imports::Path;

/// The modules of a crate that have files, with these files' names below `src`.
#[derive(Debug, Default)]
struct Modules(BTreeMap<Module, (PathBuf, Imports)>);

impl Modules {
    fn read(sources: &Path) -> Result<Self> {
        let mut texts = Vec::new();
        for file in files::files(sources, "rs")? {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            texts.push((file.strip_prefix(sources)?.to_owned(), text));
        }
        Ok(Self::of(&texts))
    }

    fn of(texts: &[(PathBuf, String)]) -> Self {
        // Programs beside the library are crates of their own.
        let is_library = texts.iter().any(|(file, _)| file == Path::new("lib.rs"));
        let is_program = |file: &Path| file.starts_with("bin") || is_library && file == Path::new("main.rs");
        let texts = texts.iter().filter(|(file, _)| !is_program(file));
        let texts: Vec<_> = texts.map(|(file, text)| (module_of(file), file, text)).collect();
        let modules: BTreeSet<Module> = texts.iter().map(|(module, ..)| module.clone()).collect();
        let mut read = BTreeMap::new();
        for (module, file, text) in texts {
            read.insert(module.clone(), (file.clone(), imports::read(text, &module, |path| modules.contains(path))));
        }
        let tests = read.iter().flat_map(|(module, (_, imports))| {
            imports.test_modules.iter().map(|name| module.iter().chain([name]).cloned().collect::<Module>())
        });
        let tests: Vec<Module> = tests.collect();
        read.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self(read)
    }

    /// The arrows between modules of one folder: by folder, from and to, with the places of the imports.
    fn arrows(&self) -> BTreeMap<Module, Arrows<'_>> {
        let mut arrows: BTreeMap<Module, Arrows<'_>> = BTreeMap::new();
        for (from, (file, imports)) in &self.0 {
            for (path, line) in &imports.used {
                let Some(to) = self.target(path, from) else { continue };
                let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
                if let (Some(start), Some(end)) = (from.get(shared), to.get(shared)) {
                    let folder = arrows.entry(from.iter().take(shared).cloned().collect()).or_default();
                    let places = folder.entry(start).or_default().entry(end).or_default();
                    // One line may import several names.
                    if places.last() != Some(&(file, *line)) {
                        places.push((file, *line));
                    }
                }
            }
        }
        arrows
    }

    /// The module that a path leads into.
    fn target<'a>(&'a self, path: &'a [String], from: &Module) -> Option<&'a [String]> {
        let mut path = path;
        // Names may lead in a circle too.
        for _ in 0..self.0.len() {
            let length = (0..=path.len()).rev().find(|length| self.0.contains_key(path.split_at(*length).0))?;
            let (module, item) = path.split_at(length);
            if !from.starts_with(module) {
                return Some(module);
            }
            path = self.0.get(module)?.1.names.get(item.first()?)?;
        }
        None
    }
}

/// From, to, and where it is imported: file and line.
type Arrows<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<(&'a PathBuf, usize)>>>;

fn module_of(file: &Path) -> Module {
    let mut names: Module = file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        names.pop();
    }
    names
}

fn circles(modules: &Modules, package: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for (folder, arrows) in modules.arrows() {
        let place = package.join("src").join(folder.join("/"));
        let circles: BTreeSet<Vec<&str>> = arrows.keys().filter_map(|module| shortest(&arrows, module)).collect();
        broken.extend(circles.iter().map(|circle| {
            let steps = circle.iter().zip(circle.iter().cycle().skip(1));
            let steps = steps.map(|(from, to)| {
                let places = arrows.get(from).and_then(|to_all| to_all.get(to)).map(Vec::as_slice).unwrap_or_default();
                let named = places
                    .iter()
                    .take(NAMED)
                    .map(|(file, line)| format!("{}:{line}", package.join("src").join(file).display()));
                let more = places.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("\n    {from} imports {to} in {}{more}", named.collect::<Vec<_>>().join(", "))
            });
            format!("{} has a circle of modules:{}", place.display(), steps.collect::<String>())
        }));
    }
    broken
}

/// The shortest circle that a module is in, from the first of its names on.
fn shortest<'a>(arrows: &Arrows<'a>, module: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![module]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| arrows.get(last)).into_iter().flat_map(BTreeMap::keys) {
            if *next == module {
                let first = way.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(place, _)| place);
                return Some(way.iter().cycle().skip(first).take(way.len()).copied().collect());
            }
            if seen.insert(*next) {
                ways.push_back(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
        circles(&Modules::of(&files), Path::new("engine"))
    }

    #[test]
    fn a_circle_of_two_folders_is_reported_with_both_imports() {
        let planted = found(&[
            ("lib.rs", "mod command;\nmod mvcc;"),
            ("command/mod.rs", "mod encoding;"),
            ("command/encoding.rs", "use bytes::Bytes;\nuse crate::mvcc::Txn;"),
            ("mvcc/mod.rs", "mod store;\npub struct Txn;"),
            ("mvcc/store.rs", "fn encode(txn: super::Txn) -> Bytes {\n\n    crate::command::encode(txn)\n}"),
        ]);
        let expected = "engine/src/ has a circle of modules:\
                        \n    command imports mvcc in engine/src/command/encoding.rs:2\
                        \n    mvcc imports command in engine/src/mvcc/store.rs:3";
        assert_eq!(planted, [expected]);
    }

    #[test]
    fn a_longer_circle_is_found_within_a_folder_and_through_what_it_exports() {
        let planted = found(&[
            ("lib.rs", "mod node;"),
            ("node/mod.rs", "mod a;\nmod b;\nmod c;\npub use c::Last;"),
            ("node/a.rs", "use super::b;"),
            ("node/b.rs", "use super::Last;"),
            ("node/c.rs", "use crate::node::a;\nuse crate::node::a::A;\nuse super::a::B;\nuse super::a::C;"),
        ]);
        let expected = "engine/src/node has a circle of modules:\
                        \n    a imports b in engine/src/node/a.rs:1\
                        \n    b imports c in engine/src/node/b.rs:1\
                        \n    c imports a in engine/src/node/c.rs:1, engine/src/node/c.rs:2, engine/src/node/c.rs:3 and 1 more";
        assert_eq!(planted, [expected]);
    }

    #[test]
    fn what_a_library_exports_counts_where_a_program_stands_beside_it() {
        let library =
            [("lib.rs", "mod a;\nmod b;\npub use b::Last;"), ("a.rs", "use crate::Last;"), ("b.rs", "use crate::a;")];
        assert_eq!(found(&library).len(), 1);
        let [library, a, b] = library;
        assert_eq!(found(&[library, a, b, ("main.rs", "use engine::Last;")]).len(), 1);
    }

    #[test]
    fn layers_pass() {
        let layers = [
            ("lib.rs", "mod log;\nmod node;\nmod raft;\npub use node::Node;\npub use raft::Member;"),
            ("log.rs", "use crate::raft::Entry;\nuse crate::Member;\n#[cfg(test)]\nuse crate::node::Node;"),
            ("node/mod.rs", "mod calls;\nmod run;\n#[cfg(test)]\nmod trial;\npub struct Node;\nuse run::start;"),
            ("node/calls.rs", "use super::Node;\nuse crate::log;"),
            ("node/run.rs", "use super::{Node, calls};\nuse crate::log;"),
            ("node/trial.rs", "use super::run;\nuse crate::Node;"),
            ("raft.rs", "pub struct Member;"),
            ("bin/node.rs", "use engine::Node;"),
        ];
        assert_eq!(found(&layers), Vec::<String>::new());
    }
}
