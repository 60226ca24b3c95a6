#![doc = include_str!("README.md")]
// What clippy.toml has no word for: a test may panic.
#![cfg_attr(test, allow(clippy::string_slice, clippy::unreachable))]

pub mod boot;
pub mod cmdline;
pub mod command;
pub mod config;
pub mod console;
pub mod desk;
pub mod directives;
pub mod error;
pub mod exitrd;
pub mod fetch;
pub mod handler;
pub mod handover;
pub mod keeper;
pub mod machine;
pub mod net;
pub mod original;
pub mod overlay;
pub mod plan;
pub mod report;
pub mod root;
// The only folder that may hold `unsafe`.
#[allow(unsafe_code)]
pub mod sys;
