//! Coverage in one segment: which of its documents are the ones that answer for their time.

use super::access::access_in;
use super::node::{Node, Scratch};
use super::operand::within;
use crate::leaf::segment::SegmentView;
use strandline_index::DocBits;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_proto::leaf::CoverageFilter;

/// The documents of a segment that coverage lets answer.
#[derive(Debug)]
pub(in crate::leaf) enum Cut {
    /// All of them.
    All,
    /// None.
    Nothing,
    /// Those inside the covered intervals.
    Inside(Node),
    /// Those outside, and those without a time.
    Outside(Node),
}

impl Cut {
    /// The cut of `segment`.
    pub(in crate::leaf) fn new(
        segment: &SegmentView,
        coverage: Option<&CoverageFilter>,
    ) -> Result<Self> {
        let Some(coverage) = coverage else {
            return Ok(Self::All);
        };
        let column = segment.column(&coverage.column)?;
        let test = within(column.data_type, &coverage.intervals)
            .map_err(|e| e.at(format_args!("time column {:?}", column.name)))?;
        // A time that is null is in no interval: nodes never keep nulls.
        let inside = access_in(segment, column, test, false)?.node;
        Ok(match (segment.half, inside) {
            (Half::Offline, Node::All) | (Half::Realtime, Node::Nothing) => Self::All,
            (Half::Offline, Node::Nothing) | (Half::Realtime, Node::All) => Self::Nothing,
            (Half::Offline, inside) => Self::Inside(inside),
            (Half::Realtime, inside) => Self::Outside(inside),
        })
    }

    /// Removes the documents of `chunk` that may not answer from `left`.
    pub(in crate::leaf) fn narrow(
        &self,
        chunk: u32,
        left: &mut DocBits,
        scratch: &mut Scratch,
    ) -> Result<()> {
        match self {
            Self::All => {}
            Self::Nothing => left.clear(),
            Self::Inside(node) => {
                let scanned = scratch.docs_scanned;
                node.narrow(chunk, left, scratch)?;
                scratch.docs_scanned = scanned;
            }
            Self::Outside(node) => {
                let scanned = scratch.docs_scanned;
                let mut inside = scratch.take_bits();
                inside.words_mut().copy_from_slice(left.words());
                node.narrow(chunk, &mut inside, scratch)?;
                left.and_not(&inside);
                scratch.give_bits(inside);
                scratch.docs_scanned = scanned;
            }
        }
        Ok(())
    }
}
