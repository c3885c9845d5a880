//! Messages from a seed, right ones and changed ones. However they are cut, they are read alike; a
//! reader of another make agrees with every one that is taken; what goes on is one message and no
//! more; nothing panics, and nothing is kept beyond its bound.

mod make;
pub(in crate::proxy::http) mod reader;
mod requests;
mod responses;
