//! Reads the fields of a table of a configuration, and reports every mistake with its place.
//!
//! It never stops at the first mistake: whoever writes a file wants all of them. Unknown names are mistakes in our
//! files, and warnings in others'.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    mistakes::{Location, Reporter, did_you_mean},
    tree::{Node, Table, Value},
};

/// A table whose names are known: what is asked for is taken, and what is wrong is reported.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the table begins.
    pub(super) location: Location,
    fields: BTreeMap<&'static str, &'a Node>,
    report: &'a Reporter,
}

/// A value, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) location: Location,
    pub(super) value: T,
}

impl<'a> Fields<'a> {
    /// Reports names that are not known, with the nearest one that is, and those that stand there twice.
    pub(super) fn of(table: &'a Table, known: &[&'static str], report: &'a Reporter) -> Self {
        Self::read(table, known, report, Reporter::mistake)
    }

    /// The same of a table of another program, which passes over names that it does not know: they are warned of.
    pub(super) fn of_foreign(table: &'a Table, known: &[&'static str], report: &'a Reporter) -> Self {
        Self::read(table, known, report, Reporter::warning)
    }

    fn read(
        table: &'a Table,
        known: &[&'static str],
        report: &'a Reporter,
        unknown: fn(&Reporter, Location, String),
    ) -> Self {
        let mut fields = BTreeMap::new();
        let mut firsts = BTreeMap::new();
        for entry in &table.entries {
            let Some(name) = known.iter().find(|known| **known == entry.name) else {
                let hint = did_you_mean(&entry.name, known.iter().copied());
                unknown(report, entry.location, format!("there is no key `{}`{hint}", entry.name));
                continue;
            };
            match firsts.get(name) {
                None => {
                    firsts.insert(name, entry.location);
                    fields.insert(*name, &entry.node);
                }
                Some(first) => report.mistake(entry.location, format!("`{name}` stands there twice, first in {first}")),
            }
        }
        Self { location: table.location, fields, report }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// A text.
    pub(super) fn text(&self, name: &'static str) -> Option<At<&'a str>> {
        self.take(name, "text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A text that means something.
    pub(super) fn parsed<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        let text = self.text(name)?;
        self.understood(name, text.location, parse(text.value))
    }

    /// A whole number.
    pub(super) fn number<T>(&self, name: &'static str, check: impl Fn(i64) -> Result<T, String>) -> Option<At<T>> {
        let number = self.take(name, "a number", |value| match value {
            Value::Number(number) => Some(*number),
            _ => None,
        })?;
        self.understood(name, number.location, check(number.value))
    }

    /// A number that may stand in a variable of the environment, which are texts.
    pub(super) fn count<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        let text = self.take(name, "a number", |value| match value {
            Value::Number(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })?;
        self.understood(name, text.location, parse(&text.value))
    }

    /// True or false, which may be said as yes or no.
    pub(super) fn flag(&self, name: &'static str) -> Option<At<bool>> {
        self.take(name, "yes or no", |value| match value {
            Value::Flag(flag) => Some(*flag),
            Value::Text(text) if text.eq_ignore_ascii_case("yes") => Some(true),
            Value::Text(text) if text.eq_ignore_ascii_case("no") => Some(false),
            _ => None,
        })
    }

    /// A table.
    pub(super) fn table(&self, name: &'static str) -> Option<&'a Table> {
        let table = self.take(name, "a table", |value| match value {
            Value::Table(table) => Some(table),
            _ => None,
        })?;
        Some(table.value)
    }

    /// A list. A single value stands for a list of it.
    pub(super) fn list(&self, name: &'static str) -> Option<&'a [Node]> {
        let node = self.fields.get(name)?;
        Some(match &node.value {
            Value::List(nodes) => nodes,
            _ => std::slice::from_ref(*node),
        })
    }

    /// A list of texts that mean something.
    pub(super) fn parsed_list<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for node in self.list(name).unwrap_or_default() {
            match &node.value {
                Value::Text(text) => {
                    values.extend(self.understood(name, node.location, parse(text)).map(|at| at.value))
                }
                other => {
                    self.report.mistake(node.location, format!("`{name}` is a list of texts, not of {}", other.kind()))
                }
            }
        }
        values
    }

    fn take<T>(&self, name: &'static str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<At<T>> {
        let node = self.fields.get(name)?;
        let value = read(&node.value);
        if value.is_none() {
            self.report.mistake(node.location, format!("`{name}` is {wanted}, not {}", node.value.kind()));
        }
        Some(At { location: node.location, value: value? })
    }

    fn understood<T>(&self, name: &str, location: Location, value: Result<T, String>) -> Option<At<T>> {
        match value {
            Ok(value) => Some(At { location, value }),
            Err(reason) => {
                self.report.mistake(location, format!("`{name}`: {reason}"));
                None
            }
        }
    }
}

/// A path, as it is written.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path has at least one character".to_owned()) } else { Ok(text.into()) }
}
