//! The engine against a naive evaluator.
