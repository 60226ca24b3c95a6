//! The report that the agent leaves in the running system, as a table.

use anyhow::{Context, Result};
use landfall_tests::Node;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Report {
    pub stages: Vec<Stage>,
}

#[derive(Deserialize)]
pub struct Stage {
    pub name: String,
    pub seconds: f64,
}

impl Report {
    pub fn of(node: &Node<'_>) -> Result<Self> {
        let text = node.file("/run/landfall/report.json")?;
        serde_json::from_str(&text).with_context(|| format!("the agent's report: {text}"))
    }

    /// From the first to the last stage, that is from `/init` to the exec of the real init.
    pub fn seconds(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }

    /// One stage a line; `after` is what the kernel did before, and what followed until now.
    pub fn table(&self, up_seconds: f64) -> String {
        let mut text = String::from("stage            seconds\n");
        for stage in &self.stages {
            text.push_str(&format!("{:<16} {:>7.2}\n", stage.name, stage.seconds));
        }
        text.push_str(&format!("{:<16} {:>7.2}\n", "/init to exec", self.seconds()));
        text.push_str(&format!("{:<16} {up_seconds:>7.2}\n", "power on to up"));
        text
    }
}
