//! Talks to the keeper, the process that ends an instance whose lease has passed.
