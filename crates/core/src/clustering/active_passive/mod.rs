//! One instance serves, another takes over.
