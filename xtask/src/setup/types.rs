//! What Grafana publishes as the types of its dashboards and the Prometheus operator as those of its monitors, and the
//! compiler that checks them, under `target/`.

use std::path::PathBuf;

use super::npm::Project;

/// Exact versions, with their hashes in the lock.
pub(super) const TYPES: Project = Project {
    name: "Grafana's types",
    why: "what dashboards are checked against; with the operator's, for the chart's monitors",
    directory: "types",
    package: include_str!("types/package.json"),
    lock: include_str!("types/package-lock.json"),
};

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    TYPES.directory()
}
