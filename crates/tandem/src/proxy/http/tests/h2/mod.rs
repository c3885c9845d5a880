//! Balancers whose clients or endpoints speak HTTP/2, good ones and bad ones.

pub mod client;
mod endpoints;
mod hostile;
pub mod server;
mod streams;
