//! Talks to operators and programs over HTTP.
