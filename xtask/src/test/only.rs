//! What of the tests is wanted, by name.

use std::{convert::Infallible, fmt, str::FromStr};

/// Part of the names of steps or scenarios; nothing for all.
#[derive(Clone, Debug, Default)]
pub(super) struct Only(String);

impl FromStr for Only {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_lowercase()))
    }
}

impl fmt::Display for Only {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Only {
    /// Whether a step or scenario is wanted by its own name.
    pub(super) fn wants(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.0)
    }

    /// The wanted scenarios of a step: all of a wanted step's.
    pub(super) fn among(&self, step: &str, scenarios: &[&'static str]) -> Vec<&'static str> {
        let all = self.wants(step);
        scenarios.iter().copied().filter(|scenario| all || self.wants(scenario)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_brings_its_scenarios_and_a_scenario_comes_alone() {
        let scenarios = ["HAProxy gives up", "CLOSE_WAIT leak"];
        let among = |text: &str| text.parse::<Only>().expect("any text").among("findings", &scenarios);
        assert_eq!(among(""), scenarios);
        assert_eq!(among("Findings"), scenarios);
        assert_eq!(among("haproxy"), ["HAProxy gives up"]);
        assert!(among("nothing like it").is_empty());
    }
}
