//! Whole shards over real sockets and files: requests, forwarding, bad clients, stopping.

mod clients;
mod requests;
mod rig;
