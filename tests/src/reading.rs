//! What the reader says and is asked: one JSON value a line, over the third serial port.
//!
//! The reader (`src/bin/reader`) reads the root of a running system all the time, and lives where
//! neither the root's death nor the network's can reach it. It speaks first ([`Said::Hello`]), and
//! then at any moment of what it has read ([`Said::Read`]), so that the harness can compare it with
//! the image that was served; what it is asked it answers by number, because an answer that needs
//! the root may take as long as the root is away.

use serde::{Deserialize, Serialize};

use crate::checksum::TreeDigest;

/// The third serial port of a PC, as the guest sees it.
pub const PORT: &str = "/dev/ttyS2";

/// What is read of the root's device at a time.
pub const BLOCK: u64 = 4096;

/// What sums of the whole device are made of.
pub const PIECE: u64 = 1 << 20;

/// A pause is what takes longer, in seconds: less than that is an emulated machine's every day.
pub const PAUSE: f64 = 0.1;

/// Of a hog whose time is over.
pub const STILL_THERE: &str = "still there";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub number: u64,
    pub what: Question,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    Report,
    /// Gives every clean page of the page cache back.
    DropCaches,
    /// Everything below a directory, on its file system, read and summed.
    Tree(String),
    /// The whole device of the root, past the page cache, summed in pieces of [`PIECE`].
    Device,
    /// A text file.
    Text(String),
    /// What a Unix socket says before it closes the connection.
    Socket(String),
    /// `SIGSTOP` for every process but PID 1 and the reader, and `SIGCONT` so many seconds later.
    Freeze(f64),
    /// A signal for PID 1, by number: what systemd(1) takes for an order.
    SignalInit(i32),
    /// Takes memory until so many bytes are available no more, or all that there is, in a child that
    /// the kernel is free to kill, and says how the child ended, or that it still had all of it
    /// after so many seconds.
    Hog {
        leave_bytes: Option<u64>,
        seconds: f64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Hello(Hello),
    /// Blocks of the root's device, each by its number and [`sum`].
    Read(Vec<(u64, u64)>),
    Answer {
        number: u64,
        answer: Answer,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Of the running system, in seconds since power-on (`CLOCK_MONOTONIC`).
    pub at: f64,
    /// The root's device, `/dev/dm-0`.
    pub device: String,
    pub device_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Report(Report),
    Tree(TreeDigest),
    /// Of each piece.
    Device(Vec<u64>),
    Text(String),
    Done,
    /// Could not; the words are those of the system.
    Failed(String),
}

/// Everything since the reader began. Times are of `CLOCK_MONOTONIC`, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub at: f64,
    /// Blocks of the device, past the page cache.
    pub device: Line,
    /// Files below `/rofs`, past the page cache as far as the file system allows.
    pub files: Line,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// Those that came to an end, well or not.
    pub reads: u64,
    /// The first of them; reading went on.
    pub errors: Vec<Trouble>,
    pub error_count: u64,
    /// Reads that took longer than [`PAUSE`], in their order.
    pub pauses: Vec<Pause>,
    /// The read that has not come to an end yet began then.
    pub reading_since: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trouble {
    pub at: f64,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// When the read began.
    pub at: f64,
    pub seconds: f64,
}

/// FNV-1a with 64 bits: against mistakes, not against enemies, and a few lines.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the authors of the function publish it.
    #[test]
    #[rustfmt::skip]
    fn a_sum_is_fnv_1a() {
        let cases: [(&[u8], u64); 3] = [
            (b"",       0xcbf2_9ce4_8422_2325),
            (b"a",      0xaf63_dc4c_8601_ec8c),
            (b"foobar", 0x8594_4171_f739_67e8),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sum(bytes), expected, "{bytes:?}");
        }
    }
}
