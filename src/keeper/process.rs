//! The keeper as the agent sees it: a child that is started and told things.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::orders::Order;
use crate::error::{Error, Result, WhileDoing};

/// What it is called; the `@` is for systemd.
pub const NAME: &str = "@landfall";

/// How an order is answered that has been carried out; anything else is why it has not.
pub const DONE: &str = "done";

/// The running keeper. It goes on when this value goes, if it was told of the handover; else it ends.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Keeper {
    /// Starts it, from the file that this program is, and waits until it has settled.
    pub fn start(debug: bool) -> Result<Self> {
        let doing = || "starting the keeper of the root";
        let (ours, its) = UnixStream::pair().while_doing(doing)?;
        ours.set_read_timeout(Some(Self::PATIENCE)).while_doing(doing)?;
        ours.set_write_timeout(Some(Self::PATIENCE)).while_doing(doing)?;
        let answers = BufReader::new(ours.try_clone().while_doing(doing)?);
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg("keeper")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .while_doing(doing)?;
        let mut keeper = Self { child, orders: ours, answers };
        match keeper.tell(&Order::Begin { debug }) {
            Ok(()) => Ok(keeper),
            Err(error) => {
                keeper.dismiss();
                Err(error)
            }
        }
    }

    /// It does nothing that waits for others before it answers.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Gives an order, and waits until it is taken.
    pub fn tell(&mut self, order: &Order) -> Result<()> {
        let doing = || "telling the keeper of the root";
        let mut line = serde_json::to_vec(order)
            .map_err(|error| Error::invalid(doing(), error.to_string()))?;
        line.push(b'\n');
        self.orders.write_all(&line).while_doing(doing)?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(0) => Err(Error::refused(doing(), "it has ended; the kernel log may say why")),
            Ok(_) if answer.trim_end() == DONE => Ok(()),
            Ok(_) => Err(Error::refused(doing(), answer.trim_end())),
            Err(error) => Err(error).while_doing(doing),
        }
    }

    /// Ends it, for a boot that has failed and leaves nothing behind.
    pub fn dismiss(mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
