//! Whole shards over real sockets and files: requests, forwarding, bad clients, stopping.

mod clients;
mod compressed;
mod requests;
mod rig;
