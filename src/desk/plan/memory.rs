//! What a node's memory is asked for: a copy of the image, and file systems that live in it.

use super::document::{File, Memory, Problem, Severity, Tmpfs};
use super::problem;
use super::situation::Situation;
use crate::desk::image::Image;
use crate::root::{self, RamMode, RootPlan};

pub fn memory(
    situation: &Situation,
    root: Option<&RootPlan>,
    files: &[File],
    image: &Image,
    problems: &mut Vec<Problem>,
) -> Memory {
    let total_bytes = situation.memory_kib.and_then(|kib| kib.checked_mul(1024));
    let image_bytes = image.size_bytes();
    let copied = root.is_some_and(|root| root.ram != RamMode::Off);
    let fits = match (copied, total_bytes, image_bytes) {
        (true, Some(total), Some(bytes)) => {
            // The kernel and what is running already are not known: at best, all of it is free.
            let memory = root::Memory { total, available: total };
            let fits = root::fits(bytes, &memory);
            if let Err(why) = &fits {
                problems.push(problem::said(
                    Severity::Warning,
                    format!("{why}; it is streamed instead"),
                ));
            }
            Some(fits.is_ok())
        }
        _ => None,
    };
    let share = |size: &str| match size.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.parse().ok()?;
            Some(total_bytes?.checked_mul(percent)? / 100)
        }
        None => size_in_bytes(size),
    };
    let tmpfs = |path: &str, size: &str| Tmpfs {
        path: path.to_owned(),
        size: size.to_owned(),
        bytes: share(size),
    };
    let overlay = situation.plan.overlay().size.unwrap_or_else(|| "50%".to_owned());
    let mut all = vec![tmpfs("/", &overlay)];
    let fstab = files.iter().rev().find(|file| file.path == "/etc/fstab");
    for line in fstab.and_then(|file| file.contents.as_deref()).unwrap_or_default().lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let [_, path, "tmpfs", rest @ ..] = fields.as_slice()
            && !line.starts_with('#')
        {
            let options = rest.first().copied().unwrap_or_default().split(',');
            let size = options.filter_map(|option| option.strip_prefix("size=")).next_back();
            all.push(tmpfs(path, size.unwrap_or("50%")));
        }
    }
    Memory { total_bytes, image_bytes, copied, fits, tmpfs: all }
}

/// A size with a suffix of tmpfs.
fn size_in_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift: u32 = match text.get(digits.len()..)? {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
