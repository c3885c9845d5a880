//! Builds and wires the parts of one node, starts and stops them in order.
