//! The lines an operator reads, and the only place that writes to a terminal or to `/dev/kmsg`.
//!
//! Every line of the agent and of its dependencies comes through the `log` facade: `target` is
//! the subject (`network`, `root`, …). `info!` is a line on the console, `warn!` one that is
//! repeated before the handover, `error!` belongs to the failure screen, `debug!` goes to the
//! kernel log only. What lasts is shown by [`waiting`] and [`progress`].

mod failure;
mod line;
mod shell;
mod sink;
mod transfer;
mod wait;

pub use failure::{Policy, give_up, install_panic_hook, set_policy, show_failure};
pub use line::kmsg_records;
pub use shell::{rescue_shell, shell_is_there};
pub use sink::{Loudness, attach, leave, repeat_warnings, start, warnings};
pub use transfer::{Progress, progress};
pub use wait::{Waiting, waiting};
