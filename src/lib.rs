#![doc = include_str!("README.md")]

pub mod boot;
pub mod cmdline;
pub mod command;
pub mod config;
pub mod console;
pub mod desk;
pub mod directives;
pub mod error;
pub mod fetch;
pub mod handler;
pub mod handover;
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
