//! Reading TOML so that every mistake is reported with its place: a table is asked for its keys one by one, and what
//! nobody asked for is unknown.

use std::ops::Range;
use std::str::FromStr;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, nearest};
use crate::limits::Limits;
use crate::nesting;
use crate::text::{Malformed, quoted};

/// A value with its place.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Reads `source` with `read`. A value comes back only if no mistake was reported.
pub(super) fn parse<T>(
    source: &str,
    limits: &Limits,
    read: impl FnOnce(&mut Mistakes<'_>, &DeTable<'_>) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    let mut mistakes = Mistakes { source, limits, found: Vec::new() };
    if source.len() > limits.manifest_bytes {
        let help = format!("it has {} bytes, and {} are allowed", source.len(), limits.manifest_bytes);
        return Err(vec![Diagnostic::whole("the manifest is too long", Some(help))]);
    }
    if let Some(at) = nesting::first_too_deep(source, limits.manifest_nesting) {
        mistakes.add(at..at + 1, format!("nested deeper than {} levels", limits.manifest_nesting), None);
        return Err(mistakes.found);
    }
    let (document, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        mistakes.add(error.span().unwrap_or(source.len()..source.len()), said(error.message()), None);
    }
    // What a broken document means is a guess: its syntax comes first.
    let value = if errors.is_empty() { read(&mut mistakes, document.get_ref()) } else { None };
    match value {
        Some(value) if mistakes.found.is_empty() => Ok(value),
        _ => Err(mistakes.in_order()),
    }
}

/// The parser's message in our form.
fn said(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let mut letters = line.chars();
    letters
        .next()
        .map_or_else(|| "not TOML".to_owned(), |first| first.to_lowercase().chain(letters).collect())
}

/// The mistakes found so far.
pub(super) struct Mistakes<'s> {
    pub(super) source: &'s str,
    pub(super) limits: &'s Limits,
    found: Vec<Diagnostic>,
}

impl Mistakes<'_> {
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        if self.found.len() < self.limits.diagnostics {
            self.found.push(Diagnostic::at(self.source, span, message, help));
        }
    }

    pub(super) fn malformed(&mut self, span: Range<usize>, error: &Malformed) {
        self.add(span, format!("{} is not {}", error.text, error.what), Some(error.rule.to_owned()));
    }

    fn in_order(mut self) -> Vec<Diagnostic> {
        if self.found.is_empty() {
            // No value and no reason would be a hole in the readers; it must not look like success.
            self.add(0..0, "the manifest cannot be read", None);
        }
        self.found.sort_by_key(|mistake| (mistake.span.start, mistake.span.end));
        self.found.dedup();
        self.found
    }
}

/// A table that is being read.
pub(super) struct Fields<'t, 'i> {
    table: &'t DeTable<'i>,
    /// What a person knows it by: "`[recipe]`".
    what: &'static str,
    span: Range<usize>,
    asked: Vec<&'static str>,
    found: Vec<(&'static str, Range<usize>)>,
}

impl<'t, 'i> Fields<'t, 'i> {
    pub(super) fn of_root(table: &'t DeTable<'i>) -> Self {
        Fields { table, what: "the manifest", span: 0..0, asked: Vec::new(), found: Vec::new() }
    }

    /// The table in `value`; any other value is a mistake.
    pub(super) fn of(mistakes: &mut Mistakes<'_>, value: &'t Value<'i>, what: &'static str) -> Option<Self> {
        let table = value.get_ref().as_table().or_else(|| wrong_type(mistakes, value, "a table"))?;
        Some(Fields { table, what, span: value.span(), asked: Vec::new(), found: Vec::new() })
    }

    /// The value of `key`, read; `None` if it is absent or was a mistake, which is then reported.
    pub(super) fn optional<T>(
        &mut self,
        mistakes: &mut Mistakes<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Mistakes<'_>, &'t Value<'i>) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(key);
        let value = self.table.get(key)?;
        self.found.push((key, value.span()));
        read(mistakes, value)
    }

    /// As [`Fields::optional`], and an absent key is a mistake.
    pub(super) fn required<T>(
        &mut self,
        mistakes: &mut Mistakes<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Mistakes<'_>, &'t Value<'i>) -> Option<T>,
    ) -> Option<T> {
        if self.table.get(key).is_none() {
            mistakes.add(self.span.clone(), format!("{} has no `{key}`", self.what), None);
        }
        self.optional(mistakes, key, read)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where the value of a key lies that was asked for and is there.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.found.iter().find(|(name, _)| *name == key).map_or(self.span.clone(), |(_, span)| span.clone())
    }

    /// Reports what was not asked for. Gives the places of the values that were found.
    pub(super) fn finish(self, mistakes: &mut Mistakes<'_>) -> Vec<(&'static str, Range<usize>)> {
        let unknown = self.table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref()));
        for key in unknown.take(mistakes.limits.diagnostics) {
            let name = key.get_ref();
            let help = match nearest(name, &self.asked) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("{} can have {}", self.what, listed(&self.asked)),
            };
            mistakes.add(key.span(), format!("unknown key {}", quoted(name)), Some(help));
        }
        self.found
    }
}

/// "`a`, `b` and `c`"
pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "no keys".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

fn wrong_type<T>(mistakes: &mut Mistakes<'_>, value: &Value<'_>, wanted: &str) -> Option<T> {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    mistakes.add(value.span(), format!("expected {wanted}, found {found}"), None);
    None
}

pub(super) fn text<'t>(mistakes: &mut Mistakes<'_>, value: &'t Value<'_>) -> Option<&'t str> {
    value.get_ref().as_str().or_else(|| wrong_type(mistakes, value, "a string"))
}

/// A type that reads itself from text.
pub(super) fn parsed<T: FromStr<Err = Malformed>>(
    mistakes: &mut Mistakes<'_>,
    value: &Value<'_>,
) -> Option<T> {
    match text(mistakes, value)?.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            mistakes.malformed(value.span(), &error);
            None
        }
    }
}

pub(super) fn boolean(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<bool> {
    value.get_ref().as_bool().or_else(|| wrong_type(mistakes, value, "`true` or `false`"))
}

/// An integer from `least` to `most`.
pub(super) fn integer<T: TryFrom<i64>>(
    mistakes: &mut Mistakes<'_>,
    value: &Value<'_>,
    least: i64,
    most: i64,
) -> Option<T> {
    let Some(integer) = value.get_ref().as_integer() else {
        return wrong_type(mistakes, value, "an integer");
    };
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
    let read =
        number.filter(|number| (least..=most).contains(number)).and_then(|number| T::try_from(number).ok());
    if read.is_none() {
        mistakes.add(value.span(), format!("not within {least} to {most}"), None);
    }
    read
}

/// A list of at most `most` elements; elements with mistakes are left out.
pub(super) fn list<'t, 'i, T>(
    mistakes: &mut Mistakes<'_>,
    value: &'t Value<'i>,
    most: usize,
    mut read: impl FnMut(&mut Mistakes<'_>, &'t Value<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    let array = value.get_ref().as_array().or_else(|| wrong_type(mistakes, value, "a list"))?;
    if array.len() > most {
        mistakes.add(value.span(), format!("{} elements, and {most} are allowed", array.len()), None);
        return None;
    }
    Some(array.iter().filter_map(|element| read(mistakes, element)).collect())
}

/// A list in which nothing comes twice.
pub(super) fn distinct<'t, 'i, T: PartialEq>(
    mistakes: &mut Mistakes<'_>,
    value: &'t Value<'i>,
    mut read: impl FnMut(&mut Mistakes<'_>, &'t Value<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    let most = mistakes.limits.list_elements;
    let elements =
        list(mistakes, value, most, |mistakes, element| Some((read(mistakes, element)?, element.span())))?;
    let mut kept: Vec<T> = Vec::with_capacity(elements.len());
    for (element, span) in elements {
        if kept.contains(&element) {
            mistakes.add(span, "listed twice", None);
        } else {
            kept.push(element);
        }
    }
    Some(kept)
}

/// A list in which nothing comes twice and that is not empty.
pub(super) fn distinct_some<'t, 'i, T: PartialEq>(
    mistakes: &mut Mistakes<'_>,
    value: &'t Value<'i>,
    read: impl FnMut(&mut Mistakes<'_>, &'t Value<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        mistakes.add(value.span(), "the list is empty", None);
    }
    distinct(mistakes, value, read)
}
