//! A file as a tree whose parts know their lines: the same for TOML and JSON.

use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged, parse_to_ast};
use toml::de::{DeTable, DeValue};

use super::mistakes::{Location, Reporter};

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) location: Location,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// What no key of ours can be, and what it is called.
    Other(&'static str),
}

impl Value {
    /// What people call such a value.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Values with names, in no order. A name may stand there twice, which is for the reader to report.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) location: Location,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) location: Location,
    pub(super) node: Node,
}

impl Table {
    /// Takes a name out, whatever it has.
    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }

    /// Gives a name this value, whatever it had.
    pub(super) fn set(&mut self, name: &str, node: Node) {
        self.remove(name);
        self.entries.push(Entry { name: name.to_owned(), location: node.location, node });
    }

    /// Gives a name this value in the table `inner` of this one, which is made if there is none.
    pub(super) fn set_within(&mut self, inner: &str, name: &str, node: Node) {
        let location = node.location;
        let found = self.entries.iter_mut().find(|entry| entry.name == inner);
        if let Some(Value::Table(table)) = found.map(|entry| &mut entry.node.value) {
            return table.set(name, node);
        }
        let mut table = Self { location, entries: Vec::new() };
        table.set(name, node);
        self.set(inner, Node { location, value: Value::Table(table) });
    }
}

/// Reads TOML; `None` after a mistake of grammar, since little can be said about the rest then.
pub(super) fn toml(text: &str, report: &Reporter) -> Option<Table> {
    let lines = Lines(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let location = lines.location(error.span().map_or(0, |span| span.start));
        report.mistake(location, format!("this is no TOML: {}", error.message()));
    }
    errors.is_empty().then(|| toml_table(table.get_ref(), Location::Line(1), &lines))
}

fn toml_table(table: &DeTable<'_>, location: Location, lines: &Lines<'_>) -> Table {
    let entries = table.iter().map(|(name, value)| {
        let location = lines.location(value.span().start);
        let value = toml_value(value.get_ref(), location, lines);
        Entry {
            name: name.get_ref().to_string(),
            location: lines.location(name.span().start),
            node: Node { location, value },
        }
    });
    Table { location, entries: entries.collect() }
}

fn toml_value(value: &DeValue<'_>, location: Location, lines: &Lines<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number that is too large"), Value::Number),
        DeValue::Array(values) => Value::List(
            values
                .iter()
                .map(|value| {
                    let location = lines.location(value.span().start);
                    Node { location, value: toml_value(value.get_ref(), location, lines) }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(toml_table(table, location, lines)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    }
}

/// Reads JSON as its standard has it, without the liberties that the parser could take.
pub(super) fn json(text: &str, report: &Reporter) -> Option<Table> {
    const STRICT: ParseOptions = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let lines = Lines(text);
    let parsed = match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            report.mistake(lines.location(error.range().start), format!("this is no JSON: {}", error.kind()));
            return None;
        }
    };
    match parsed {
        Some(ast::Value::Object(object)) => Some(json_table(&object, &lines)),
        _ => {
            report.mistake(Location::Line(1), "this is no configuration: one begins with { and ends with }");
            None
        }
    }
}

fn json_table(object: &ast::Object<'_>, lines: &Lines<'_>) -> Table {
    let entries = object.properties.iter().map(|property| Entry {
        name: property.name.as_str().to_owned(),
        location: lines.location(property.range.start),
        node: json_node(&property.value, lines),
    });
    Table { location: lines.location(object.range.start), entries: entries.collect() }
}

fn json_node(value: &ast::Value<'_>, lines: &Lines<'_>) -> Node {
    let location = lines.location(value.start());
    let value = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.to_string()),
        ast::Value::NumberLit(number) => {
            number.value.parse().map_or(Value::Other("a number with a fraction, or too large"), Value::Number)
        }
        ast::Value::BooleanLit(flag) => Value::Flag(flag.value),
        ast::Value::Object(object) => Value::Table(json_table(object, lines)),
        ast::Value::Array(array) => Value::List(array.elements.iter().map(|value| json_node(value, lines)).collect()),
        ast::Value::NullKeyword(_) => Value::Other("null"),
    };
    Node { location, value }
}

/// The lines of a text.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line that has this byte. Counted anew each time: such files are short, and read once.
    fn location(&self, at: usize) -> Location {
        let before = self.0.as_bytes().get(..at).unwrap_or(self.0.as_bytes());
        Location::Line(1 + before.iter().filter(|byte| **byte == b'\n').count())
    }
}
