//! What Grafana publishes as the types of its dashboards, and the compiler that checks them, under `target/`.

use std::path::PathBuf;

use super::npm::Project;

/// Exact versions, with their hashes in the lock.
pub(super) const TYPES: Project = Project {
    name: "Grafana's types",
    why: "what dashboards are checked against",
    directory: "grafana-types",
    package: include_str!("grafana/package.json"),
    lock: include_str!("grafana/package-lock.json"),
};

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    TYPES.directory()
}
