//! From a control group's path to the workload it stands for.
//!
//! | path holds | workload |
//! |---|---|
//! | a Kubernetes pod | `pod/<uid>/<container>`, or `pod/<uid>` outside its containers |
//! | a container (Docker, containerd, CRI-O, Podman) | `container/<container>` |
//! | a systemd service or scope | its name: `nginx.service` |
//! | a login session or an ad-hoc unit of `systemd-run` | the slice it is in: `user-1000.slice` |
//! | anything else, the root | empty |
//!
//! `<container>` is the first 12 digits of the container's id, as `docker ps` and `crictl ps` print it. What is
//! innermost wins, but a unit inside a container is part of the container.

use super::labels::harmless;

/// Digits of a container's id that are shown.
pub(super) const SHORT_ID: usize = 12;
/// What runtimes put before a container's id in the name of a systemd scope.
const RUNTIMES: [&str; 5] = ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-"];
/// Units whose names hold a number that never comes back.
const TRANSIENT: [&str; 2] = ["session-", "run-"];

/// The workload of a control group's path; empty when it tells none.
pub fn workload(path: &str) -> String {
    let path = path.trim_end_matches('\n').trim_end_matches(" (deleted)");
    // containerd under a mismatched cgroup driver joins slice, runtime and id by colons.
    let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().enumerate().rev().find_map(|(at, part)| Some((at, pod_uid(part)?)));
    let container = parts.iter().enumerate().rev().find_map(|(at, part)| Some((at, container_id(part)?)));
    match (pod, container) {
        (Some((pod_at, uid)), Some((at, id))) if at > pod_at => format!("pod/{uid}/{id}"),
        (Some((_, uid)), _) => format!("pod/{uid}"),
        (None, Some((_, id))) => format!("container/{id}"),
        (None, None) => harmless(unit(&parts).unwrap_or_default()),
    }
}

/// The uid in `pod<uid>` (cgroupfs driver) or `kubepods[-class]-pod<uid>.slice` (systemd driver, `_` for `-`).
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // 36 characters; 32 for static pods, whose uid is a hash.
    let well_formed =
        (32..=36).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    well_formed.then_some(uid)
}

/// The short id in `<runtime>-<64 digits>.scope` or a bare `<64 digits>`.
fn container_id(part: &str) -> Option<&str> {
    let id = match part.strip_suffix(".scope") {
        Some(scope) => RUNTIMES.iter().find_map(|runtime| scope.strip_prefix(runtime))?,
        None => part,
    };
    let well_formed = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if well_formed { id.get(..SHORT_ID) } else { None }
}

fn unit<'a>(parts: &[&'a str]) -> Option<&'a str> {
    let at = parts.iter().rposition(|part| is_unit(part))?;
    if !TRANSIENT.iter().any(|prefix| parts[at].starts_with(prefix)) {
        return Some(parts[at]);
    }
    parts[..at].iter().rev().find(|part| part.strip_suffix(".slice").is_some()).copied()
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope"].iter().any(|suffix| part.len() > suffix.len() && part.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::labels::is_harmful;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1b2c3d4e-0000-1111-2222-333344445555";

    #[test]
    fn units() {
        for (path, expected) in [
            ("/", ""),
            ("", ""),
            ("/system.slice", ""),
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/nginx.service (deleted)\n", "nginx.service"),
            ("/system.slice/system-php.slice/php@7.service/worker", "php@7.service"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/node.service", "node.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "user-1000.slice"),
            ("/system.slice/run-u123.service", "system.slice"),
            ("/run-u123.service", ""),
            ("/init.scope", "init.scope"),
            ("/machine.slice/machine-web.scope", "machine-web.scope"),
            ("/.service", ""),
        ] {
            assert_eq!(workload(path), expected, "{path}");
        }
    }

    #[test]
    fn containers() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/docker/{ID}/system.slice/nginx.service"),
            format!("/system.slice/cri-containerd-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/system.slice/nerdctl-{ID}.scope"),
            format!("/default/{ID}"),
        ] {
            assert_eq!(workload(&path), "container/0123456789ab", "{path}");
        }
        assert_eq!(
            workload(&format!("/system.slice/crio-conmon-{ID}.scope")),
            format!("crio-conmon-{ID}.scope")
        );
        assert_eq!(workload("/docker/0123"), "");
    }

    #[test]
    fn pods() {
        let underscored = UID.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscored}.slice/cri-containerd-{ID}.scope"
            ),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{underscored}.slice:cri-containerd:{ID}"
            ),
            // kind: a node that is a container itself.
            format!("/docker/{ID}/kubelet/kubepods/pod{UID}/{ID}"),
        ] {
            assert_eq!(workload(&path), format!("pod/{UID}/0123456789ab"), "{path}");
        }
        assert_eq!(workload(&format!("/docker/{ID}/kubepods/pod{UID}")), format!("pod/{UID}"));
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(workload(&format!("/kubepods/pod{hash}/{ID}")), format!("pod/{hash}/0123456789ab"));
        assert_eq!(workload("/kubepods/podium/x.service"), "x.service");
    }

    proptest! {
        #[test]
        fn any_path_gives_a_harmless_name(path in "\\PC*|[/:a-f0-9._\u{1}é-]*|(/(pod|docker-|kubepods-pod)[0-9a-fé_-]{0,70}(.slice|.scope|.service)?)*") {
            prop_assert!(!workload(&path).contains(is_harmful));
        }
    }
}
