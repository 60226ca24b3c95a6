//! A DHCPv4 client for a machine whose root is on the other end of the cable.

pub mod client;
pub mod message;
mod options;
