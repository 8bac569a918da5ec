//! Consuming columns while they grow.
