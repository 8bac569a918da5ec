//! JSON documents: reading their text, paths into them, and the filters of JSON_MATCH.
//!
//! What a filter means is defined here, on a document's text ([`JsonFilter::matches`]); an index has to give the same
//! answer. A broker evaluates it above the leaf, a server in it.
//!
//! A document is seen as *records*. Every choice of one element of each array that is reached gives a record: the
//! scalar values that are left, each by its path. Nulls, and objects and arrays that hold nothing else, are not
//! there at all. A filter holds for a document when it holds for one of its records:
//!
//! ```
//! use strandline_proto::json::JsonFilter;
//!
//! let person = r#"{"name": "ada", "homes": [{"city": "york", "no": 3}, {"city": "hull", "no": 7}]}"#;
//! let matches = |filter| JsonFilter::parse(filter).map(|f| f.matches(person));
//! assert!(matches(r#""$.homes[*].city" = 'hull' AND "$.homes[*].no" = 7"#)?);
//! // Both are about the same home.
//! assert!(!matches(r#""$.homes[*].city" = 'hull' AND "$.homes[*].no" = 3"#)?);
//! # Ok::<(), strandline_proto::Error>(())
//! ```

mod document;
mod extract;
mod filter;
mod number;
mod parse;
mod path;
mod reader;

pub use document::Document;
pub use extract::{Found, JsonValue, compact, extract};
pub use filter::{Atom, JsonFilter, Test};
pub use number::{Number, canonical};
pub use path::{Index, JsonPath, Step};
pub use reader::{DEPTH_MAX, JsonReader, PlainNumber, check, write_string};

#[cfg(test)]
mod tests;
