//! Walking a JSON document with the path in hand, noting which keys were looked at.
//!
//! Scalars are read as leniently as Pinot reads them: `"true"` is a boolean, `"5"` a number, and a null is an
//! absent key.

use super::ConfigWarning;
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use std::fmt;
use strandline_proto::{Error, Result};

/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Reads a document's text.
pub(super) fn parse(json: &str) -> Result<Json> {
    if json.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the document is longer than {DOCUMENT_BYTES_MAX} bytes"
        )));
    }
    serde_json::from_str(json).map_err(|e| Error::invalid(format!("not a JSON document: {e}")))
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'d> {
    path: String,
    value: &'d Json,
}

impl<'d> Node<'d> {
    pub(super) fn root(document: &'d Json) -> Self {
        Self {
            path: String::new(),
            value: document,
        }
    }

    pub(super) fn path(&self) -> &str {
        if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        }
    }

    pub(super) fn value(&self) -> &'d Json {
        self.value
    }

    pub(super) fn wrong(&self, message: impl fmt::Display) -> Error {
        Error::invalid(format!("{}: {message}", self.path()))
    }

    pub(super) fn unsupported(&self, what: impl fmt::Display) -> Error {
        Error::unsupported(format!("not supported: {}: {what}", self.path()))
    }

    pub(super) fn warning(&self, message: impl Into<String>) -> ConfigWarning {
        ConfigWarning {
            path: self.path().to_owned(),
            message: message.into(),
        }
    }

    fn expected(&self, what: &str) -> Error {
        let found = match self.value {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        self.wrong(format_args!("expected {what}, found {found}"))
    }

    pub(super) fn object(&self) -> Result<Object<'d>> {
        match self.value {
            Json::Object(map) => Ok(Object {
                path: self.path.clone(),
                map,
                seen: BTreeSet::new(),
            }),
            _ => Err(self.expected("an object")),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Node<'d>>> {
        match self.value {
            Json::Array(list) => Ok(list
                .iter()
                .enumerate()
                .map(|(i, value)| Node {
                    path: format!("{}[{i}]", self.path),
                    value,
                })
                .collect()),
            _ => Err(self.expected("an array")),
        }
    }

    pub(super) fn text(&self) -> Result<&'d str> {
        match self.value {
            Json::String(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// Text, or a number or boolean as text.
    pub(super) fn scalar_text(&self) -> Result<String> {
        match self.value {
            Json::String(text) => Ok(text.clone()),
            Json::Number(number) => Ok(number.to_string()),
            Json::Bool(value) => Ok(value.to_string()),
            _ => Err(self.expected("a string")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        match self.value {
            Json::Bool(value) => Ok(*value),
            Json::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Json::String(text) if text.eq_ignore_ascii_case("false") || text.is_empty() => {
                Ok(false)
            }
            _ => Err(self.expected("true or false")),
        }
    }

    /// Text of an enumeration, in upper case.
    pub(super) fn word(&self) -> Result<String> {
        Ok(self.text()?.trim().to_ascii_uppercase())
    }

    /// A list of texts, or one text.
    pub(super) fn texts(&self) -> Result<Vec<(Node<'d>, &'d str)>> {
        if let Json::String(text) = self.value {
            return Ok(vec![(self.clone(), text)]);
        }
        self.list()?
            .into_iter()
            .map(|node| node.text().map(|text| (node.clone(), text)))
            .collect()
    }

    /// Whether it says nothing: false, zero, or empty.
    pub(super) fn is_blank(&self) -> bool {
        match self.value {
            Json::Null => true,
            Json::Bool(value) => !value,
            Json::Number(number) => number.as_f64() == Some(0.0),
            Json::String(text) => text.is_empty() || text.eq_ignore_ascii_case("false"),
            Json::Array(list) => list.is_empty(),
            Json::Object(map) => map.is_empty(),
        }
    }
}

/// An object whose keys are taken one by one.
#[derive(Debug)]
pub(super) struct Object<'d> {
    path: String,
    map: &'d Map<String, Json>,
    seen: BTreeSet<&'d str>,
}

impl<'d> Object<'d> {
    /// The value of a key; none when it is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Node<'d>> {
        let (key, value) = self.map.get_key_value(key)?;
        self.seen.insert(key);
        if value.is_null() {
            None
        } else {
            Some(self.node(key, value))
        }
    }

    fn node(&self, key: &str, value: &'d Json) -> Node<'d> {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Node { path, value }
    }

    /// All keys that were not taken yet, as taken.
    pub(super) fn take_rest(&mut self) -> Vec<(&'d str, Node<'d>)> {
        let rest: Vec<_> = self
            .map
            .iter()
            .filter(|(key, value)| !self.seen.contains(key.as_str()) && !value.is_null())
            .map(|(key, value)| (key.as_str(), self.node(key, value)))
            .collect();
        self.seen.extend(rest.iter().map(|(key, _)| *key));
        rest
    }

    /// Takes keys that need no honouring.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.take(key);
        }
    }

    /// Takes a key that isn't honoured: a warning when it says anything.
    pub(super) fn warn(&mut self, key: &str, message: &str, warnings: &mut Vec<ConfigWarning>) {
        if let Some(node) = self.take(key)
            && !node.is_blank()
        {
            warnings.push(node.warning(message));
        }
    }

    /// Takes a key without which answers would be wrong: an error when it says anything.
    pub(super) fn refuse(&mut self, key: &str, why: &str) -> Result<()> {
        match self.take(key) {
            Some(node) if !node.is_blank() => Err(node.unsupported(why)),
            _ => Ok(()),
        }
    }

    /// A key that must be there.
    pub(super) fn require(&mut self, key: &str) -> Result<Node<'d>> {
        let path = if self.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path)
        };
        self.take(key)
            .ok_or_else(|| Error::invalid(format!("{path}the key {key} is missing")))
    }

    /// Ends the walk: what was not looked at is not known.
    pub(super) fn finish(mut self, warnings: &mut Vec<ConfigWarning>) {
        for (_, node) in self.take_rest() {
            warnings.push(node.warning("not known; it has no effect"));
        }
    }
}
