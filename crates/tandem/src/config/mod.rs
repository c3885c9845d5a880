//! Reads the configuration file: what was written becomes what may be run.
