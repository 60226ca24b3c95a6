//! QEMU's own control port: what happens to a machine from outside, such as a pulled cable.
//!
//! QEMU Machine Protocol: a JSON value a line; a greeting, a handshake, then an answer to each
//! command, with events in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Takes the greeting, and enters the mode in which commands are taken.
    pub fn greet(port: UnixStream) -> Result<Self> {
        // It answers at once, unless it is stuck.
        port.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut qmp = Self(BufReader::new(port));
        qmp.value()?.get("QMP").context("qemu does not greet")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// What the command returns.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let mut answer = self.value()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("qemu: {line}: {error}");
            }
            // An event.
        }
    }

    fn value(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("listening to qemu")?;
        serde_json::from_str(&line).with_context(|| format!("qemu says {line:?}"))
    }
}
