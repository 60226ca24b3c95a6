//! Keys for an sshd that no node will have: LTSP's lists take the service away wherever nobody
//! keeps it.

use std::collections::HashSet;

use super::finding::Findings;
use super::sections::Index;
use super::settings::Setting;

/// Warns once for the file, at the first setting in vain.
pub fn check(index: &Index<'_>, settings: &[Setting<'_>], findings: &mut Findings) {
    let in_force =
        |setting: &&Setting<'_>| !setting.is_none() && !setting.imported.text.trim().is_empty();
    let about_keys = |setting: &&Setting<'_>| {
        let key = setting.entry.key.as_str();
        key == "SSH_HOST_KEYS" || key.starts_with("SSH_AUTHORIZED_KEYS_")
    };
    let keys: Vec<_> = settings.iter().filter(about_keys).filter(in_force).collect();
    if keys.is_empty() {
        return;
    }
    let keepers: HashSet<usize> =
        settings.iter().filter(in_force).filter(|s| keeps(s)).map(|s| s.section).collect();
    // Who is in a section by pattern is not known, so anybody may be.
    let by_pattern = |section: &usize| {
        index.section(*section).is_some_and(|section| section.name.contains(['*', '?', '[']))
    };
    if keepers.iter().any(by_pattern) {
        return;
    }
    let names: Vec<_> = settings.iter().filter(|s| s.entry.key == "HOSTNAME").collect();
    let mut renamed = names.into_iter().peekable();
    // All that is in force somewhere together with a section that keeps it.
    let mut kept: HashSet<usize> = HashSet::new();
    for section in 0..index.len() {
        let mut together = index.chain(section);
        while let Some(setting) = renamed.next_if(|setting| setting.section <= section) {
            let target = index.find(&setting.imported.text);
            together.extend(target.into_iter().flat_map(|target| index.chain(target)));
        }
        if together.iter().any(|section| keepers.contains(section)) {
            kept.extend(together);
        }
    }
    let mut in_vain = keys.iter().filter(|setting| !kept.contains(&setting.section));
    if let Some(first) = in_vain.next() {
        let more = match in_vain.count() {
            0 => String::new(),
            more => format!(" (and {more} more of its kind)"),
        };
        let text = format!("the service ssh is removed from every node that gets this{more}");
        let help = "KEEP_SYSTEM_SERVICES = ssh";
        findings.warn(first.key_span(), text, Some(help));
    }
}

/// Whether a setting says that sshd stays, or may say so.
fn keeps(setting: &Setting<'_>) -> bool {
    let is_list =
        matches!(setting.entry.key.as_str(), "KEEP_SYSTEM_SERVICES" | "ENABLE_SYSTEM_SERVICES");
    let names_it = |word: &str| {
        let stem = word.strip_suffix(".service").or_else(|| word.strip_suffix(".socket"));
        ["ssh", "sshd"].contains(&stem.unwrap_or(word))
    };
    is_list && (!setting.imported.is_known() || setting.imported.text.split(' ').any(names_it))
}
