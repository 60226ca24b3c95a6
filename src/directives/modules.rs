//! MODULE_*: kernel modules, each with its parameters.
//!
//! Tried at once, with the modules of this image, since the commands that follow may need them.
//! What the image does not have is left to the new root, which has the whole set of its kernel:
//! systemd-modules-load reads its list early, before local file systems and the network.

use super::Tree;
use crate::config::Settings;
use crate::error::Result;

const LOAD: &str = "/etc/modules-load.d/landfall.conf";
const OPTIONS: &str = "/etc/modprobe.d/landfall.conf";

/// Loads a module: its name and its parameters, as after modprobe.
pub type Load<'a> = &'a dyn Fn(&str, &str) -> Result<()>;

/// How many modules were loaded, and how many are left to the new root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub now: usize,
    pub later: usize,
}

pub fn apply(settings: &Settings, tree: &Tree, load: Load<'_>) -> Result<Loaded> {
    let mut later = Vec::new();
    let wanted = wanted(settings);
    for (name, parameters) in &wanted {
        if let Err(error) = load(name, parameters) {
            log::info!(target: "drivers", "{name} is left to the real root: {error}");
            later.push((*name, *parameters));
        }
    }
    if !later.is_empty() {
        let (list, options) = render(&later);
        tree.write(LOAD, &list, 0o644)?;
        if !options.is_empty() {
            tree.write(OPTIONS, &options, 0o644)?;
        }
    }
    Ok(Loaded { now: wanted.len().saturating_sub(later.len()), later: later.len() })
}

/// Names and parameters, in order.
pub fn wanted(settings: &Settings) -> Vec<(&str, &str)> {
    settings.family("MODULE_").into_iter().filter_map(|(_, line)| split(line)).collect()
}

fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (name, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (!name.is_empty()).then_some((name, parameters.trim()))
}

/// The list of names and the options of those that have some.
fn render(modules: &[(&str, &str)]) -> (String, String) {
    let mut list = String::from("# Written by landfall at boot: MODULE_ lines of lts.conf.\n");
    let mut options = String::new();
    for (name, parameters) in modules {
        list += &format!("{name}\n");
        if !parameters.is_empty() {
            options += &format!("options {name} {parameters}\n");
        }
    }
    (list, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::error::Error;

    #[test]
    fn what_cannot_be_loaded_here_is_loaded_by_the_real_root() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let mut settings = Settings::default();
        settings.insert("MODULE_01", "loop max_loop=8", Origin::Agent);
        settings.insert("MODULE_02", "netconsole netconsole=@/vmbr0,@10.9.0.15/", Origin::Agent);
        settings.insert("MODULE_03", " br_netfilter ", Origin::Agent);
        settings.insert("MODULE_04", "", Origin::Agent);
        let asked = std::cell::RefCell::new(Vec::new());
        let load = |name: &str, parameters: &str| {
            asked.borrow_mut().push(format!("{name}|{parameters}"));
            match name {
                "loop" => Ok(()),
                _ => Err(Error::refused(format!("loading {name}"), "not in this image")),
            }
        };
        let loaded = apply(&settings, &tree, &load).unwrap();
        assert_eq!(loaded, Loaded { now: 1, later: 2 });
        assert_eq!(
            *asked.borrow(),
            ["loop|max_loop=8", "netconsole|netconsole=@/vmbr0,@10.9.0.15/", "br_netfilter|"]
        );
        let list = tree.read_text(LOAD).unwrap().unwrap();
        assert!(list.ends_with("\nnetconsole\nbr_netfilter\n"), "{list}");
        assert_eq!(
            tree.read_text(OPTIONS).unwrap().as_deref(),
            Some("options netconsole netconsole=@/vmbr0,@10.9.0.15/\n")
        );
    }
}
