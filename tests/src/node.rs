//! A machine whose probe answers: its state is asked for, never guessed from a greeting.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::checksum::TreeDigest;
use crate::machine::Machine;
use crate::protocol::{Hello, Info, Mount, Ran, Reply, Request, State};

/// Reading a whole root from a slow server on an emulated machine takes the longest.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Node<'machine> {
    machine: &'machine Machine,
    pub hello: Hello,
}

impl<'machine> Node<'machine> {
    pub(crate) fn new(machine: &'machine Machine, hello: Hello) -> Self {
        Self { machine, hello }
    }

    pub fn state(&self) -> Result<State> {
        match self.ask(&Request::State)? {
            Reply::State(state) => Ok(*state),
            other => unexpected(&other),
        }
    }

    /// A text file's content.
    pub fn file(&self, path: &str) -> Result<String> {
        match self.ask(&Request::File(path.to_owned()))? {
            Reply::Text(text) => Ok(text),
            other => unexpected(&other),
        }
    }

    pub fn info(&self, path: &str) -> Result<Info> {
        match self.ask(&Request::Info(path.to_owned()))? {
            Reply::Info(info) => Ok(info),
            other => unexpected(&other),
        }
    }

    pub fn exists(&self, path: &str) -> Result<bool> {
        match self.request(&Request::Info(path.to_owned()))? {
            Reply::Failed(words) if words.contains("No such file") => Ok(false),
            Reply::Failed(words) => bail!("{path}: {words}"),
            _ => Ok(true),
        }
    }

    /// Names in a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        match self.ask(&Request::List(path.to_owned()))? {
            Reply::Names(names) => Ok(names),
            other => unexpected(&other),
        }
    }

    /// What is mounted here last, hence what one sees here.
    pub fn mount(&self, target: &str) -> Result<Mount> {
        let state = self.state()?;
        let mount = state.mounts.iter().rev().find(|mount| mount.target == target).cloned();
        mount.with_context(|| format!("nothing is mounted on {target}: {:#?}", state.mounts))
    }

    /// Reads and sums every file below `path`, from the device rather than from memory if
    /// [`Self::drop_caches`] came first.
    pub fn tree(&self, path: &str) -> Result<TreeDigest> {
        match self.ask(&Request::Tree(path.to_owned()))? {
            Reply::Tree(tree) => Ok(tree),
            other => unexpected(&other),
        }
    }

    pub fn drop_caches(&self) -> Result<()> {
        self.ask(&Request::DropCaches).map(drop)
    }

    /// Writes a file anew; the error is the machine's.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.ask(&Request::Write { path: path.to_owned(), text: text.to_owned() }).map(drop)
    }

    /// Runs a command; its status is for the caller to judge.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        match self.ask(&Request::Run(words))? {
            Reply::Ran(ran) => Ok(ran),
            other => unexpected(&other),
        }
    }

    /// The output of a command that must succeed.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        let ran = self.run(words)?;
        ensure!(ran.status == Some(0), "{words:?}: {ran:?}");
        Ok(ran.stdout)
    }

    /// Tells the running system to do something that may cut us off, and does not wait.
    pub fn begin(&self, words: &[&str]) -> Result<()> {
        self.send(&Request::Run(words.iter().map(|word| (*word).to_owned()).collect()))
    }

    /// Off at once, by `reboot(2)`.
    pub fn power_off(&self) -> Result<()> {
        self.send(&Request::PowerOff)
    }

    /// Fails with the machine's words if it could not.
    fn ask(&self, request: &Request) -> Result<Reply> {
        match self.request(request)? {
            Reply::Failed(words) => bail!("{request:?}: {words}"),
            reply => Ok(reply),
        }
    }

    fn request(&self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        let (console, _) = self.machine.control();
        console.wait(&format!("the answer to {request:?}"), PATIENCE, |heard| {
            let line = heard.control.pop_front()?;
            Some(serde_json::from_str(&line).with_context(|| format!("not a reply: {line}")))
        })
    }

    fn send(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        ensure!(line.len() < 4096, "the guest's terminal takes no more than 4 KiB at a time");
        let (_, mut port) = self.machine.control();
        port.write_all(line.as_bytes()).with_context(|| format!("sending {request:?}"))
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T> {
    bail!("an answer to another question: {reply:?}")
}
