//! What a line looks like: pure text, no terminal.

use std::time::Duration;

/// Longest record that `/dev/kmsg` takes is 1,024 bytes with its own prefix; above that the
/// kernel refuses the whole record with EINVAL.
pub const KMSG_BYTES: usize = 900;

/// `[   12.34] network: eth0 is up`, the time being seconds since the kernel started, so that the
/// line can be laid beside dmesg.
pub fn console_line(uptime: Duration, subject: &str, text: &str) -> String {
    format!("[{:8.2}] {subject}: {text}", uptime.as_secs_f64())
}

/// One record per piece; `priority` is a syslog level (0 to 7).
pub fn kmsg_records(priority: u8, subject: &str, text: &str) -> Vec<String> {
    let mut records = Vec::new();
    let mut rest = text;
    loop {
        let (piece, more) = rest.split_at(boundary(rest, KMSG_BYTES));
        records.push(format!("<{priority}>landfall: {subject}: {piece}\n"));
        if more.is_empty() {
            return records;
        }
        rest = more;
    }
}

/// The largest index up to `limit` that does not split a character.
fn boundary(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// Control characters become `?`: text from servers and files must not drive the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

/// `71.4 MiB`, `4.0 GiB`, `512 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_is_cut_between_characters() {
        let text = "ü".repeat(1000);
        let records = kmsg_records(6, "root", &text);
        assert!(records.iter().all(|record| record.len() < 1000), "{}", records.len());
        let joined: String = records
            .iter()
            .map(|r| r.trim_end().strip_prefix("<6>landfall: root: ").unwrap())
            .collect();
        assert_eq!(joined, text);
        assert_eq!(kmsg_records(4, "x", ""), ["<4>landfall: x: \n"]);
    }

    #[test]
    fn numbers_read_like_speech() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(74_868_326), "71.4 MiB");
        assert_eq!(bytes(4 << 30), "4.0 GiB");
        assert_eq!(span(Duration::from_secs(45)), "45 s");
        assert_eq!(span(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(span(Duration::from_secs(7500)), "2 h 5 min");
    }

    #[test]
    fn a_server_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\td"), "a?[2Jb??c\td");
    }
}
