//! What every file keeps to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{invariants, quotes};

/// A file past this is two rooms.
const MAX_LINES: usize = 800;

/// A source file past this opens with what it is for: nobody reads so much to find that out.
const LINES_WITHOUT_HEAD: usize = 100;

/// Words that do not reach the main branch. They are put together here so that this file has none.
const WORDS: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("dbg", "!(")];

/// Sections of a manifest that name dependencies.
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The broken rules in all crates below `root`, one sentence each.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let manifests = files(root, "toml")?.into_iter().filter(|path| path.ends_with("Cargo.toml"));
    for manifest in manifests.filter(|path| path.parent() != Some(root)) {
        let text = read(&manifest)?;
        broken.extend(check_manifest(&text).into_iter().map(|rule| located(root, &manifest, &rule)));
    }
    let sources = files(root, "rs")?;
    anyhow::ensure!(!sources.is_empty(), "no source in {}", root.display());
    let sources: Vec<_> =
        sources.into_iter().map(|path| read(&path).map(|text| (path, text))).collect::<Result<_>>()?;
    for (source, text) in &sources {
        broken.extend(check_source(text).into_iter().map(|rule| located(root, source, &rule)));
        if !is_test(source.strip_prefix(root).unwrap_or(source)) {
            broken.extend(check_head(text).map(|rule| located(root, source, &rule)));
        }
    }
    broken.extend(invariants::check(&read(&root.join("ARCHITECTURE.md"))?, &sources));
    broken.extend(quotes::check(&read(&root.join("docs/what-can-go-wrong.md"))?, &sources));
    Ok(broken)
}

fn check_source(text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        broken.push(format!("{lines} lines, more than {MAX_LINES}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        broken.extend(WORDS.iter().filter(|word| line.contains(*word)).map(|word| format!("line {number}: {word}")));
    }
    broken
}

/// Tests tell by their names what they are for.
fn is_test(file: &Path) -> bool {
    let parts = || file.components().filter_map(|part| part.as_os_str().to_str());
    parts().any(|part| part == "tests") || parts().next_back().is_some_and(|name| name.ends_with("tests.rs"))
}

fn check_head(text: &str) -> Option<String> {
    let lines = text.lines().count();
    let is_bare = lines > LINES_WITHOUT_HEAD && !text.starts_with("//!");
    is_bare.then(|| format!("{lines} lines that do not open with `//!` and what they are for"))
}

fn check_manifest(text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    // A workspace of its own has versions and lints of its own.
    if text.lines().any(|line| line.trim() == "[workspace]") {
        return broken;
    }
    let mut section = "";
    let mut has_lints = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = header;
            if DEPENDENCIES.iter().any(|name| section.contains(&format!("{name}."))) {
                broken.push(format!("[{section}]: write the dependency on one line"));
            }
            continue;
        }
        let is_shared = is_from_workspace(line);
        has_lints |= section == "lints" && line.starts_with("workspace") && line.ends_with("true");
        has_lints |= line.replace(' ', "") == "lints.workspace=true";
        let is_dependency = DEPENDENCIES.iter().any(|name| section == *name || section.ends_with(&format!(".{name}")));
        if is_dependency && starts_dependency(line) && !is_shared {
            broken.push(format!("`{line}` takes its version from elsewhere than [workspace.dependencies]"));
        }
    }
    if !has_lints {
        broken.push("has no `[lints] workspace = true`".to_owned());
    }
    broken
}

/// `name = ..` or `name.workspace = ..`, not the next line of a list that began above.
fn starts_dependency(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim();
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    })
}

fn is_from_workspace(line: &str) -> bool {
    let line = line.replace(' ', "");
    line.contains(".workspace=true") || line.contains("{workspace=true") || line.contains(",workspace=true")
}

fn located(root: &Path, file: &Path, rule: &str) -> String {
    format!("{}: {rule}", file.strip_prefix(root).unwrap_or(file).display())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files with this ending, without what is built, cached or hidden.
pub(super) fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.extension().is_some_and(|end| end == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[package]
name = \"a\"
version.workspace = true

[dependencies]
storage-core.workspace = true
# a comment
tokio = { workspace = true, features = [
    \"rt\",
] }

[target.'cfg(unix)'.dev-dependencies]
clap = { features = [\"env\"], workspace = true }

[lints]
workspace = true
";

    #[test]
    fn a_manifest_of_the_house_is_fine() {
        assert_eq!(check_manifest(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_version_of_its_own_is_reported() {
        for line in
            ["serde = \"1\"", "serde = { version = \"1\" }", "core = { path = \"../core\" }", "a = { git = \"b\" }"]
        {
            for place in ["storage-core.workspace = true", "clap = { features = [\"env\"], workspace = true }"] {
                let broken = check_manifest(&GOOD.replace(place, line));
                assert_eq!(broken.len(), 1, "{line}: {broken:?}");
            }
        }
    }

    #[test]
    fn a_dependency_in_a_table_of_its_own_is_reported() {
        let text = GOOD.replace("[lints]", "[dependencies.serde]\nversion = \"1\"\n\n[lints]");
        assert_eq!(check_manifest(&text), ["[dependencies.serde]: write the dependency on one line"]);
    }

    #[test]
    fn a_manifest_without_the_shared_lints_is_reported() {
        for text in ["", &GOOD.replace("[lints]\nworkspace = true", ""), &GOOD.replace("[lints]", "[other]")] {
            assert_eq!(check_manifest(text), ["has no `[lints] workspace = true`"]);
        }
        assert!(check_manifest("lints.workspace = true").is_empty());
    }

    #[test]
    fn a_workspace_of_its_own_is_left_alone() {
        assert!(check_manifest("[workspace]\n\n[dependencies]\nserde = \"1\"").is_empty());
    }

    #[test]
    fn a_long_source_that_does_not_say_what_it_is_for_is_reported() {
        let long = "\n".repeat(LINES_WITHOUT_HEAD);
        for text in [&long, &format!("//! What it is for.\n{long}")] {
            assert_eq!(check_head(text), None);
        }
        for text in [&format!("use std::fs;\n{long}"), &format!("use std::fs;\n//! Too late.\n{long}")] {
            assert!(check_head(text).is_some_and(|rule| rule.contains("open with `//!`")), "{text}");
        }
        for (file, expected) in [
            ("storage/src/open.rs", false),
            ("storage/src/contests/open.rs", false),
            ("storage/tests/open.rs", true),
            ("storage/src/tests/open.rs", true),
            ("storage/src/tests.rs", true),
            ("storage/src/own_table_tests.rs", true),
        ] {
            assert_eq!(is_test(Path::new(file)), expected, "{file}");
        }
    }

    #[test]
    fn a_planted_source_without_a_head_is_found() {
        let root = std::env::temp_dir().join(format!("tidy-{}", std::process::id()));
        let source = root.join("storage/src");
        fs::create_dir_all(&source).unwrap();
        fs::create_dir_all(root.join("docs")).unwrap();
        for page in ["ARCHITECTURE.md", "docs/what-can-go-wrong.md"] {
            fs::write(root.join(page), "").unwrap();
        }
        let broken = |text: String| {
            fs::write(source.join("planted.rs"), text).unwrap();
            let broken = check(&root).unwrap();
            broken.into_iter().filter(|rule| rule.starts_with("storage/src/planted.rs")).collect::<Vec<_>>()
        };
        let long = "\n".repeat(LINES_WITHOUT_HEAD);
        let (bare, headed) = (broken(format!("use std::fs;\n{long}")), broken(format!("//! A head.\n{long}")));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(bare, ["storage/src/planted.rs: 101 lines that do not open with `//!` and what they are for"]);
        assert_eq!(headed, Vec::<String>::new());
    }

    #[test]
    fn long_files_and_unfinished_work_are_reported() {
        assert!(check_source(&"\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(check_source(&"\n".repeat(MAX_LINES + 1)), ["801 lines, more than 800"]);
        for word in WORDS {
            assert_eq!(check_source(&format!("fn a() {{\n    {word}\n}}")), [format!("line 2: {word}")]);
        }
    }
}
