//! What a boot did and how long each part took, for people and for `/run/landfall/report.json`.

use std::time::Duration;

use serde::Serialize;

/// The report of one boot.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub stages: Vec<StageReport>,
    /// Seconds from the agent's first instruction to the exec of the real init.
    pub seconds: f64,
    /// The boot link, its address, the source of configuration and root, in the console's words.
    pub choices: Vec<Choice>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    pub name: &'static str,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    pub what: &'static str,
    pub value: String,
}

impl Report {
    pub fn add_stage(&mut self, name: &'static str, took: Duration) {
        self.stages.push(StageReport { name, seconds: rounded(took) });
    }

    pub fn add_choice(&mut self, what: &'static str, value: impl Into<String>) {
        self.choices.push(Choice { what, value: value.into() });
    }

    /// `network 2.13 s, config 0.05 s, …`
    pub fn one_line(&self) -> String {
        let parts: Vec<String> = self
            .stages
            .iter()
            .map(|stage| format!("{} {:.2} s", stage.name, stage.seconds))
            .collect();
        parts.join(", ")
    }
}

/// Milliseconds are all that a clock of a booting machine is good for.
pub fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_stages_is_what_the_demo_reads() {
        let mut report = Report { version: "0.1.0", ..Default::default() };
        report.add_stage("network", Duration::from_micros(2_130_400));
        report.add_choice("root", "10.0.0.1:10809 \"focal\"");
        assert_eq!(report.one_line(), "network 2.13 s");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["stages"][0]["name"], "network");
        assert_eq!(json["stages"][0]["seconds"], 2.13);
        assert_eq!(json["choices"][0]["what"], "root");
    }
}
