//! Sets up logs, events and metrics.
