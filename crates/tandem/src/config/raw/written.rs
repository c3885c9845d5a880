//! What a value is as it was written, before anybody asks what it means.
//! Not here: which keys there are (`section.rs`).

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value that may be of several types.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

pub(in crate::config) type Text = Option<Spanned<String>>;
pub(in crate::config) type Number = Option<Spanned<i64>>;
pub(in crate::config) type Flag = Option<Spanned<bool>>;

/// A table that can be switched off with `false`.
#[derive(Debug, Default)]
pub(in crate::config) enum Switch<T> {
    /// Nothing was written, or nothing that can be read.
    #[default]
    Unwritten,
    Off,
    On(T),
}

impl<T> Switch<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Switch<U> {
        match self {
            Self::Unwritten => Switch::Unwritten,
            Self::Off => Switch::Off,
            Self::On(table) => Switch::On(f(table)),
        }
    }
}

/// One of a list: a text, or a table.
pub(super) struct Item<'s, 'a> {
    pub(super) place: Range<usize>,
    pub(super) value: Result<String, &'s DeTable<'a>>,
}

pub(super) fn type_word(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn scalar(value: &DeValue<'_>) -> Option<Scalar> {
    match value {
        DeValue::String(text) => Some(Scalar::Text(text.to_string())),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Scalar::Integer)
        }
        DeValue::Float(number) => {
            number.as_str().parse().ok().filter(|n: &f64| n.is_finite()).map(Scalar::Float)
        }
        DeValue::Boolean(on) => Some(Scalar::Boolean(*on)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
