//! What the operator says about modules: `module.option=value` and `modprobe.blacklist=` on the
//! kernel command line, and the files of modprobe.d(5) when the image has some.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::index::{normalized, parse_softdep};
use crate::cmdline::{Word, words};

/// Modules to be loaded around another one, if they can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Softdep {
    pub pre: Vec<String>,
    pub post: Vec<String>,
}

/// Names of modules are normalized (`_` for `-`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// In the order given; the kernel takes the last one of a repeated option.
    options: HashMap<String, Vec<String>>,
    /// Not loaded for a device; an explicit request by name still loads them.
    blacklist: BTreeSet<String>,
    pub aliases: Vec<(String, String)>,
    pub softdeps: Vec<(String, Softdep)>,
    /// Lines that are understood, but not obeyed.
    pub ignored: Vec<String>,
}

impl Configuration {
    /// Files of modprobe.d below `root`, then the command line, whose options therefore win.
    ///
    /// A file hides those of the same name in the later directories, so that `/etc` overrides the
    /// distribution. What cannot be read is left out.
    pub fn read(root: &Path, command_line: &str) -> Self {
        let mut files = BTreeMap::new();
        for directory in ["etc", "run", "usr/local/lib", "usr/lib", "lib"] {
            let Ok(entries) = fs::read_dir(root.join(directory).join("modprobe.d")) else {
                continue;
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
                }
            }
        }
        let mut configuration = Self::default();
        for path in files.values() {
            match fs::read(path) {
                Ok(text) => configuration.add_file(&String::from_utf8_lossy(&text)),
                Err(error) => {
                    configuration.ignored.push(format!("{}: {error}", path.display()));
                }
            }
        }
        configuration.add_command_line(command_line);
        configuration
    }

    /// Reads one file of modprobe.d(5).
    pub fn add_file(&mut self, text: &str) {
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let (name, value) =
                rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
            let value = value.trim();
            match command {
                "" => {}
                _ if command.starts_with('#') => {}
                "options" if !value.is_empty() => self.add_option(name, value),
                "blacklist" if !name.is_empty() => {
                    self.blacklist.insert(normalized(name));
                }
                // An alias to "off" was the way to disable one before there was a blacklist.
                "alias" if !value.is_empty() && value != "off" => {
                    self.aliases.push((name.to_owned(), normalized(value)));
                }
                "softdep" => self.softdeps.push((normalized(name), parse_softdep(value))),
                // The idiom that forbids a module, also to explicit requests. Those are our own
                // here, made only when the boot cannot go on without.
                "install" if matches!(value, "/bin/true" | "/bin/false" | "true" | "false") => {
                    self.blacklist.insert(normalized(name));
                }
                _ => self.ignored.push(line.to_owned()),
            }
        }
    }

    /// `module.option=value`, `module.flag`, `modprobe.blacklist=a,b`, `module_blacklist=a,b`.
    ///
    /// The kernel enforces the last one itself, for explicit loads too; knowing it spares a failed
    /// attempt. Any word with a dot is taken for a module's option: whether there is such a module
    /// shows when it is loaded.
    pub fn add_command_line(&mut self, command_line: &str) {
        for Word { key, value, .. } in words(command_line) {
            match (normalized(key).as_str(), value) {
                ("modprobe.blacklist" | "module_blacklist", Some(names)) => {
                    let names = names.split(',').filter(|name| !name.is_empty());
                    self.blacklist.extend(names.map(normalized));
                }
                _ => {
                    let Some((module, option)) = key.split_once('.') else { continue };
                    if !module.is_empty() && !option.is_empty() {
                        self.add_option(module, &assignment(option, value));
                    }
                }
            }
        }
    }

    fn add_option(&mut self, module: &str, option: &str) {
        self.options.entry(normalized(module)).or_default().push(option.to_owned());
    }

    /// What is passed to the kernel with a module: our own `defaults`, then what was configured, so
    /// that the operator has the last word.
    pub fn parameters(&self, module: &str, defaults: &[(&str, &str)]) -> String {
        let defaults = defaults.iter().map(|(option, value)| assignment(option, Some(value)));
        let configured = self.options.get(&normalized(module)).into_iter().flatten().cloned();
        defaults.chain(configured).collect::<Vec<_>>().join(" ")
    }

    pub fn is_blacklisted(&self, module: &str) -> bool {
        self.blacklist.contains(&normalized(module))
    }
}

/// The kernel splits parameters at blanks outside double quotes, as it splits its command line.
fn assignment(option: &str, value: Option<&str>) -> String {
    match value {
        Some(value) if value.contains(char::is_whitespace) => format!("{option}=\"{value}\""),
        Some(value) => format!("{option}={value}"),
        None => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn options_of_the_command_line_reach_their_module() {
        let cases = [
            ("nbd.nbds_max=4 quiet",          "nbd",       "nbds_max=1 nbds_max=4"), // the operator is last
            ("quiet ro nbd",                  "nbd",       "nbds_max=1"),
            ("dm-mod.create=\"a, b c\"",      "dm_mod",    "nbds_max=1 create=\"a, b c\""),
            ("\"dm_mod.create=a b\"",         "dm-mod",    "nbds_max=1 create=\"a b\""),
            ("r8169.flag",                    "r8169",     "nbds_max=1 flag"),
            ("nbd.a=1 -- nbd.b=2",            "nbd",       "nbds_max=1 a=1"), // those are for init
            (".x=1 nbd.=2 =3 .",              "nbd",       "nbds_max=1"),
        ];
        for (line, module, expected) in cases {
            let mut configuration = Configuration::default();
            configuration.add_command_line(line);
            assert_eq!(configuration.parameters(module, &[("nbds_max", "1")]), expected, "{line}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn blacklists_come_from_both_spellings_and_from_files() {
        let cases = [
            ("modprobe.blacklist=e1000,r8169", "r8169"),
            ("module_blacklist=snd-pcm",       "snd_pcm"),
            ("module_blacklist=a modprobe.blacklist=,b,", "b"),
        ];
        for (line, module) in cases {
            let mut configuration = Configuration::default();
            configuration.add_command_line(line);
            assert!(configuration.is_blacklisted(module), "{line}");
            assert!(!configuration.is_blacklisted("nbd"), "{line}");
            assert_eq!(configuration.parameters("modprobe", &[]), "", "{line}");
        }
    }

    #[test]
    fn files_of_modprobe_d_are_read_and_commands_in_them_are_not_run() {
        let mut configuration = Configuration::default();
        configuration.add_file(
            "# a comment\n\
             options  nbd   nbds_max=2 \\\n  max_part=3\n\
             blacklist pcspkr\n\
             install usb-storage /bin/false\n\
             install nbd /sbin/modprobe --ignore-install nbd && logger\n\
             alias net-pf-10 off\n\
             alias eth0 e1000e\n\
             softdep mlx4_core post: mlx4_en\n\
             options\n",
        );
        assert_eq!(configuration.parameters("nbd", &[]), "nbds_max=2    max_part=3");
        assert!(configuration.is_blacklisted("pcspkr"));
        assert!(configuration.is_blacklisted("usb_storage"));
        assert!(!configuration.is_blacklisted("nbd"));
        assert_eq!(configuration.aliases, [("eth0".to_owned(), "e1000e".to_owned())]);
        let softdep = Softdep { pre: vec![], post: vec!["mlx4_en".to_owned()] };
        assert_eq!(configuration.softdeps, [("mlx4_core".to_owned(), softdep)]);
        assert_eq!(configuration.ignored.len(), 3, "{:?}", configuration.ignored);
    }

    #[test]
    fn a_file_in_etc_hides_the_distributions_file_of_the_same_name() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/modprobe.d/a.conf", "options nbd x=etc\n"),
            ("lib/modprobe.d/a.conf", "options nbd x=lib\n"),
            ("lib/modprobe.d/b.conf", "options nbd y=lib\n"),
            ("lib/modprobe.d/b.dpkg-old", "options nbd z=old\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let configuration = Configuration::read(root.path(), "nbd.y=line");
        assert_eq!(configuration.parameters("nbd", &[]), "x=etc y=lib y=line");
    }

    proptest! {
        #[test]
        fn no_text_can_panic(text in "(\\PC|\n|\")*") {
            let mut configuration = Configuration::default();
            configuration.add_file(&text);
            configuration.add_command_line(&text);
        }
    }
}
