//! SQL, planning and federation: from a statement to leaf queries, and from partial states to an answer.
//!
//! *Invariant*: nothing here opens a segment; the broker plans from catalog snapshots alone and reaches
//! rows through [`transport::LeafTransport`].

pub mod transport;
