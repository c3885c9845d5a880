//! Breaks a cluster on purpose and says what it cost.
