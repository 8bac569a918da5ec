//! JSON indexes of segments: what of a document goes into one, and what one answers.
//!
//! [`JsonFilter`](strandline_proto::json::JsonFilter) says on a document's text what a filter means; [`matching`] gives the
//! same answer for all documents of a segment at once, or none when the index leaves out what the filter asks for.

mod coverage;
mod matching;
mod write;

pub(super) use coverage::Coverage;
pub use coverage::JsonSpec;
pub use matching::matching;
pub(super) use write::json_section;

use strandline_proto::json::Step;

/// Appends a field step to a path as an index names it. Such a path holds no zero byte, and is no other path's.
fn push_field(path: &mut Vec<u8>, name: &str) {
    path.push(b'.');
    for &byte in name.as_bytes() {
        if matches!(byte, b'.' | b'[' | b'\\') {
            path.push(b'\\');
        }
        path.push(byte);
    }
}

/// Appends the step to an array's elements.
fn push_elements(path: &mut Vec<u8>) {
    path.extend_from_slice(b"[]");
}

/// A path as an index names it.
fn encoded(steps: &[Step]) -> Vec<u8> {
    let mut path = Vec::new();
    for step in steps {
        match step {
            Step::Field(name) => push_field(&mut path, name),
            Step::Element(_) => push_elements(&mut path),
        }
    }
    path
}

#[cfg(test)]
mod tests;
