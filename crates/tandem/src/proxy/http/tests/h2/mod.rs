//! Balancers whose clients or endpoints speak HTTP/2, good ones and bad ones.

pub mod client;
mod endpoints;
mod hostile;
mod leaving;
mod links;
pub mod server;
mod stalled;
mod streams;
mod trailers;
