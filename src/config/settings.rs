//! The settings of one node, after selection and import.

use std::collections::BTreeMap;

/// Names are upper case. Iteration is in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
}

/// Where a value came from, for error messages and `landfall plan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// 1-based line of the configuration file.
    File {
        line: usize,
    },
    CommandLine,
    Dhcp,
    /// Derived or default.
    Agent,
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|setting| setting.value.as_str())
    }
}
