//! Keeps certificates and secrets: who may speak for a node.
