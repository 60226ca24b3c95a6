//! What the keeper knows, for `landfall status`: a JSON document, and the same for people.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::network::status::NetworkStatus;
use crate::root::Size;

/// Times are seconds since the kernel started, as in dmesg; sizes are bytes, durations seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    /// When this was true.
    pub now: f64,
    /// The real init has been started.
    pub handed_over: bool,
    /// How the machine is about to end, if it is: `reboot`, `poweroff`, `halt`, `kexec`.
    pub ending: Option<String>,
    pub root: RootStatus,
    /// Servers of the image, in the order in which this node asks them.
    pub sources: Vec<SourceStatus>,
    /// Of an image that is, or has been, copied behind the running system.
    pub copy: Option<CopyStatus>,
    /// How often the root has got another connection.
    pub failovers: u64,
    pub last_failover: Option<Failover>,
    /// Of the root's files, kept in memory for a shutdown without a server.
    pub pinned_bytes: u64,
    /// From the handover on.
    pub network: Option<NetworkStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootStatus {
    pub state: RootState,
    /// What people call the image.
    pub export: String,
    pub size_bytes: u64,
    /// The kernel's device behind the root: `nbd0`, `loop0`.
    pub device: Option<String>,
    /// Since when no server answers.
    pub lost_since: Option<f64>,
    /// What is going to happen then, as after `landfall.lost=`.
    pub lost_policy: String,
    /// It gets another server when it loses the one it has, or needs none.
    pub is_kept: bool,
    /// Every block is verified.
    pub is_verified: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// The keeper has not been told yet.
    #[default]
    Unknown,
    /// Read from a server.
    Streamed,
    /// The server is gone or hangs; reads wait.
    Lost,
    /// In memory; no server is needed.
    InMemory,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// Address and port, and its name if it has one.
    pub server: String,
    pub state: SourceState,
    /// Why it is not usable, at the last try.
    pub trouble: Option<String>,
    /// When it answered, or did not, for the last time.
    pub asked_at: Option<f64>,
    /// What the root has read from it; a copy counts its own.
    pub read_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It would be there, as far as is known.
    #[default]
    Standby,
    InUse,
    /// It did not answer.
    Unreachable,
    /// It says no: it does not know the export, or wants TLS.
    Refuses,
    /// It has an image that is not ours.
    AnotherImage,
    /// It answers, and cannot be read from.
    Unusable,
    /// No longer needed.
    LetGo,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyStatus {
    pub state: CopyState,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Bytes that are zeroes, and take no memory.
    pub hole_bytes: u64,
    /// What the copy takes of the machine's memory. Where it is kept in ramfs (before Linux 6.4),
    /// holes that are read take more later.
    pub memory_bytes: u64,
    pub bytes_per_second: u64,
    pub began_at: f64,
    pub ended_at: Option<f64>,
    /// How long reads of the root stood still while the copy took the place of the server.
    pub flip_seconds: Option<f64>,
    /// What it waits for, or why it was given up.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    #[default]
    Waiting,
    Copying,
    /// There is too little memory at the moment.
    Paused,
    Complete,
    GivenUp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    pub at: f64,
    pub from: String,
    pub to: String,
    pub why: String,
    /// For how long reads had to wait.
    pub seconds: f64,
}

/// Since the kernel started, to the millisecond.
pub fn now() -> f64 {
    crate::report::rounded(crate::sys::clock::since_boot())
}

impl Status {
    /// A few lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let ago = |at: f64| duration((self.now - at).max(0.0));
        let root = &self.root;
        let size = Size(root.size_bytes);
        let device = root.device.as_deref().unwrap_or("no device");
        let how = match root.state {
            RootState::Unknown => "not known yet".to_owned(),
            RootState::Streamed if !root.is_kept => {
                format!("streamed through {device}, NOT KEPT: it will get no other server")
            }
            RootState::Streamed => format!("streamed through {device}"),
            RootState::Lost => {
                let since = root.lost_since.map(ago).unwrap_or_default();
                let then = &root.lost_policy;
                format!(
                    "LOST for {since}: no server can be read, reads wait (landfall.lost={then})"
                )
            }
            RootState::InMemory => format!("in memory ({device}); no server is needed"),
        };
        let verified = if root.is_verified { "verified, " } else { "" };
        let _ = writeln!(text, "root       \"{}\", {size}, {verified}{how}", root.export);
        for (n, source) in self.sources.iter().enumerate() {
            let state = match source.state {
                SourceState::Standby => "standing by",
                SourceState::InUse => "in use",
                SourceState::Unreachable => "not reachable",
                SourceState::Refuses => "refuses",
                SourceState::AnotherImage => "has another image",
                SourceState::Unusable => "not usable",
                SourceState::LetGo => "let go",
            };
            let name = if n == 0 { "servers" } else { "" };
            let _ = write!(text, "{name:<10} {}: {state}", source.server);
            if let Some(trouble) = &source.trouble {
                let _ = write!(text, " ({trouble})");
            }
            if source.read_bytes > 0 {
                let _ = write!(text, ", {} read", Size(source.read_bytes));
            }
            if let Some(at) = source.asked_at.filter(|_| source.state != SourceState::InUse) {
                let _ = write!(text, ", asked {} ago", ago(at));
            }
            text.push('\n');
        }
        if let Some(copy) = &self.copy {
            let (done, total) = (Size(copy.done_bytes), Size(copy.total_bytes));
            let percent = copy.done_bytes.saturating_mul(100).checked_div(copy.total_bytes);
            let percent = percent.unwrap_or(100);
            let memory = Size(copy.memory_bytes);
            let state = match copy.state {
                CopyState::Waiting => "waiting to begin".to_owned(),
                CopyState::Copying => {
                    let rate = Size(copy.bytes_per_second);
                    format!("{done} of {total} ({percent} %), {rate}/s, {memory} of memory")
                }
                CopyState::Paused => {
                    format!("{done} of {total} ({percent} %), paused, {memory} of memory")
                }
                CopyState::Complete => {
                    let took = copy.ended_at.map(|end| duration(end - copy.began_at));
                    let flip = copy.flip_seconds.unwrap_or_default() * 1000.0;
                    format!(
                        "{total} in {}, of which {} are holes, {memory} of memory; reads stood still for {flip:.0} ms",
                        took.unwrap_or_default(),
                        Size(copy.hole_bytes)
                    )
                }
                CopyState::GivenUp => format!("given up at {done} of {total}"),
            };
            let _ = write!(text, "copy       {state}");
            if let Some(trouble) = &copy.trouble {
                let _ = write!(text, ": {trouble}");
            }
            text.push('\n');
        }
        if let Some(network) = &self.network {
            text.push_str(&network.text(self.now));
        }
        if let Some(last) = &self.last_failover {
            let Failover { from, to, why, seconds, at } = last;
            let (count, ago) = (self.failovers, ago(*at));
            let _ = writeln!(
                text,
                "failovers  {count}, the last {ago} ago: {from} ({why}) to {to}, reads waited {seconds:.2} s"
            );
        }
        text
    }
}

/// `3 h 5 min`, `42 s`
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_reads_what_matters_first() {
        let mut status = Status {
            now: 100.0,
            root: RootStatus {
                state: RootState::Lost,
                export: "focal".into(),
                size_bytes: 1 << 30,
                device: Some("nbd0".into()),
                lost_since: Some(58.0),
                lost_policy: "wait".into(),
                is_kept: true,
                is_verified: true,
            },
            sources: vec![
                SourceStatus {
                    server: "boot-1 (10.0.0.1:10809)".into(),
                    state: SourceState::Unreachable,
                    trouble: Some("Connection refused".into()),
                    asked_at: Some(99.5),
                    read_bytes: 300 << 20,
                },
                SourceStatus { server: "10.0.0.2:10809".into(), ..SourceStatus::default() },
            ],
            ..Status::default()
        };
        assert_eq!(
            status.text(),
            "root       \"focal\", 1.0 GiB, verified, LOST for 42 s: no server can be read, reads wait (landfall.lost=wait)\n\
             servers    boot-1 (10.0.0.1:10809): not reachable (Connection refused), 300.0 MiB read, asked 0.5 s ago\n           \
             10.0.0.2:10809: standing by\n"
        );
        status.root.state = RootState::InMemory;
        status.sources.clear();
        status.copy = Some(CopyStatus {
            state: CopyState::Complete,
            total_bytes: 1 << 30,
            hole_bytes: 1 << 20,
            memory_bytes: 1000 << 20,
            began_at: 5.0,
            ended_at: Some(65.0),
            flip_seconds: Some(0.021),
            ..CopyStatus::default()
        });
        assert_eq!(
            status.text(),
            "root       \"focal\", 1.0 GiB, verified, in memory (nbd0); no server is needed\n\
             copy       1.0 GiB in 60 s, of which 1.0 MiB are holes, 1000.0 MiB of memory; reads stood still for 21 ms\n"
        );
    }

    #[test]
    fn older_and_newer_documents_are_read() {
        let status: Status = serde_json::from_str(r#"{"now": 1.5, "unheard_of": 1}"#).unwrap();
        assert_eq!(status.now, 1.5);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
