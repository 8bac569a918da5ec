//! Which values of documents a JSON index holds.
//!
//! The settings are Pinot's. They make an index smaller and change no answer: a filter that asks for what an index
//! leaves out is answered from the documents themselves.

use serde::{Deserialize, Serialize};
use strandline_proto::json::{Index, JsonPath, Step};
use strandline_proto::{Error, Result};

/// A JSON index as the table config describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonSpec {
    /// Steps of the longest path; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels_max: Option<u32>,
    /// Whether what is in arrays is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclude_array: bool,
    /// Only values at and below these paths; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_paths: Vec<String>,
    /// No values at and below these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_paths: Vec<String>,
    /// No values in fields of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_fields: Vec<String>,
    /// Only values at paths like these; empty: all. Steps stand between dots, an array's is empty; `*` is any step
    /// and `**` any number of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub index_paths: Vec<String>,
    /// Characters of the longest text that is held; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_chars_max: Option<u32>,
}

/// A spec, ready to be asked.
pub(in crate::segment) struct Coverage {
    pub(super) spec: JsonSpec,
    include: Vec<Vec<Step>>,
    exclude: Vec<Vec<Step>>,
    patterns: Vec<Vec<Part>>,
}

enum Part {
    AnyNumber,
    Any,
    Element,
    Field(String),
}

impl JsonSpec {
    /// Checks the paths.
    ///
    /// # Errors
    /// `InvalidArgument` when one can't be read.
    pub fn check(&self) -> Result<()> {
        Coverage::new(self.clone()).map(|_| ())
    }
}

impl Coverage {
    pub(in crate::segment) fn new(spec: JsonSpec) -> Result<Self> {
        let paths = |texts: &[String]| -> Result<Vec<Vec<Step>>> {
            texts
                .iter()
                .map(|text| {
                    let path = JsonPath::parse(text)?;
                    let placed = |step: &Step| matches!(step, Step::Element(Index::At(_)));
                    match path.steps.iter().any(placed) {
                        true => Err(Error::invalid(format!(
                            "the JSON path {text:?}: elements of arrays are indexed together: write [*]"
                        ))),
                        false => Ok(path.steps),
                    }
                })
                .collect()
        };
        let pattern = |text: &String| {
            let part = |part: &str| match part {
                "**" => Part::AnyNumber,
                "*" => Part::Any,
                "" => Part::Element,
                name => Part::Field(name.to_owned()),
            };
            text.split('.').map(part).collect()
        };
        Ok(Self {
            include: paths(&spec.include_paths)?,
            exclude: paths(&spec.exclude_paths)?,
            patterns: spec.index_paths.iter().map(pattern).collect(),
            spec,
        })
    }

    /// What an index says of itself.
    pub(in crate::segment) fn read(bytes: &[u8]) -> Result<Self, String> {
        let spec = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Self::new(spec).map_err(|e| e.to_string())
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // Texts, numbers and lists of them can always be written.
        serde_json::to_vec(&self.spec).unwrap_or_default()
    }

    /// Whether elements of arrays are numbered that stand behind so many steps.
    pub(super) fn elements(&self, steps: usize) -> bool {
        !self.spec.exclude_array && self.is_within(steps + 1)
    }

    /// Whether a path of so many steps is not too long.
    pub(super) fn is_within(&self, steps: usize) -> bool {
        self.spec.levels_max.is_none_or(|max| steps <= max as usize)
    }

    /// Whether values at a path are held.
    pub(super) fn holds(&self, steps: &[Step]) -> bool {
        let begins_with = |prefix: &Vec<Step>| {
            prefix.len() <= steps.len() && prefix.iter().zip(steps).all(|(a, b)| same(a, b))
        };
        let excluded = |step: &Step| match step {
            Step::Field(name) => self.spec.exclude_fields.contains(name),
            Step::Element(_) => self.spec.exclude_array,
        };
        self.is_within(steps.len())
            && !steps.iter().any(excluded)
            && (self.include.is_empty() || self.include.iter().any(begins_with))
            && !self.exclude.iter().any(begins_with)
            && (self.patterns.is_empty() || self.patterns.iter().any(|p| fits(p, steps)))
    }

    /// Whether a text is held as it is.
    pub(super) fn holds_text(&self, text: &str) -> bool {
        self.spec
            .value_chars_max
            .is_none_or(|max| text.len() <= max as usize || text.chars().count() <= max as usize)
    }
}

fn same(a: &Step, b: &Step) -> bool {
    match (a, b) {
        (Step::Field(a), Step::Field(b)) => a == b,
        (Step::Element(_), Step::Element(_)) => true,
        _ => false,
    }
}

fn fits(pattern: &[Part], steps: &[Step]) -> bool {
    let Some((part, rest)) = pattern.split_first() else {
        return steps.is_empty();
    };
    let one = |passes: bool| passes && fits(rest, steps.get(1..).unwrap_or_default());
    match (part, steps.first()) {
        (Part::AnyNumber, _) => {
            (0..=steps.len()).any(|n| fits(rest, steps.get(n..).unwrap_or_default()))
        }
        (_, None) => false,
        (Part::Any, Some(_)) => one(true),
        (Part::Element, Some(step)) => one(matches!(step, Step::Element(_))),
        (Part::Field(name), Some(step)) => one(matches!(step, Step::Field(n) if n == name)),
    }
}
