//! What is wrong with a configuration, each with its place: all of it, in the order in which people read.

use std::{cell::RefCell, fmt};

/// Where something stands. In the order in which people are told: lines first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Variable(&'static str),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => write!(f, "variable {name}"),
        }
    }
}

/// Something that is wrong with a configuration, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub location: Location,
    /// What it is, and what to do about it.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.text)
    }
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Mistakes {
    /// What has to be mended, in the order of the places.
    pub mistakes: Vec<Mistake>,
    /// What is only doubtful.
    pub warnings: Vec<Mistake>,
}

/// One mistake a line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// Collects mistakes while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl Reporter {
    pub(super) fn mistake(&self, location: Location, text: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { location, text: text.into() });
    }

    pub(super) fn warning(&self, location: Location, text: impl Into<String>) {
        self.warnings.borrow_mut().push(Mistake { location, text: text.into() });
    }

    /// What was read, with the warnings; or all mistakes, if there are some.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<(T, Vec<Mistake>), Mistakes> {
        let (mut mistakes, mut warnings) = (self.mistakes.into_inner(), self.warnings.into_inner());
        // Stable: mistakes of one line stay as they were found.
        mistakes.sort_by_key(|mistake| mistake.location);
        warnings.sort_by_key(|warning| warning.location);
        match read {
            Some(read) if mistakes.is_empty() => Ok((read, warnings)),
            _ => Err(Mistakes { mistakes, warnings }),
        }
    }
}

/// `, did you mean ...?` if one of the words is near enough to have been meant.
pub(super) fn did_you_mean<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    /// Below this likeness (Jaro-Winkler, 0 to 1) a suggestion is more likely to confuse than to help.
    const NEAR: f64 = 0.75;
    let word = word.to_lowercase();
    let likeness = |known: &&str| strsim::jaro_winkler(&word, known);
    let nearest = words.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest
        .filter(|known| likeness(known) > NEAR)
        .map_or_else(String::new, |known| format!(", did you mean `{known}`?"))
}
