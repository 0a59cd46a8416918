//! The part of a Kubernetes PodList that tells names.

use std::collections::HashMap;

use serde::Deserialize;

use super::{labels::harmless, workload::SHORT_ID};

/// On the copy of a static pod that the API server has: the uid that the kubelet gave the pod itself.
const STATIC_UID: &str = "kubernetes.io/config.hash";

/// `GET /api/v1/pods`.
#[derive(Debug, Deserialize)]
pub struct PodList {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "containerStatuses")]
    regular: Vec<Container>,
    #[serde(rename = "initContainerStatuses")]
    initial: Vec<Container>,
    #[serde(rename = "ephemeralContainerStatuses")]
    ephemeral: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
    /// `containerd://<64 digits>`; absent until it has been made.
    #[serde(default, rename = "containerID")]
    id: String,
}

/// Names by uid and container id.
#[derive(Debug, Default)]
pub struct PodNames {
    pods: HashMap<String, String>,
    containers: HashMap<String, String>,
}

impl PodList {
    /// Every name in it.
    pub fn names(&self) -> PodNames {
        let mut names = PodNames::default();
        for Pod { metadata, status } in &self.items {
            let pod = harmless(&format!("{}/{}", metadata.namespace, metadata.name));
            let containers = [&status.regular, &status.initial, &status.ephemeral];
            for container in containers.into_iter().flatten() {
                let digits = container.id.split_once("://").map_or("", |(_, digits)| digits);
                if let Some(id) = digits.get(..SHORT_ID) {
                    names.containers.insert(id.to_owned(), format!("{pod}/{}", harmless(&container.name)));
                }
            }
            if let Some(uid) = metadata.annotations.get(STATIC_UID) {
                names.pods.insert(uid.clone(), pod.clone());
            }
            names.pods.insert(metadata.uid.clone(), pod);
        }
        names
    }
}

impl PodNames {
    /// `namespace/pod/container` for `pod/<uid>/<container>`, `namespace/pod` for `pod/<uid>`.
    pub fn of(&self, workload: &str) -> Option<String> {
        let mut parts = workload.strip_prefix("pod/")?.split('/');
        let uid = parts.next()?;
        match parts.next() {
            Some(container) => self.containers.get(container).cloned(),
            None => self.pods.get(uid).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1452"},
        "items": [{
            "metadata": {"name": "web-7d9f", "namespace": "shop", "uid": "1b2c3d4e-0000-1111-2222-333344445555"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "app"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "app", "ready": true, "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
                    {"name": "waiting", "ready": false, "state": {"waiting": {"reason": "ContainerCreating"}}}
                ],
                "initContainerStatuses": [{"name": "wait", "containerID": "cri-o://aaaaaaaaaaaabbbb"}],
                "ephemeralContainerStatuses": [{"name": "debug", "containerID": "docker://ccccccccccccdddd"}]
            }
        }, {
            "metadata": {
                "name": "kube-proxy-node-1", "namespace": "kube-system", "uid": "99999999-0000-1111-2222-333344445555",
                "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.source": "file"}
            },
            "status": {}
        }]
    }"#;

    #[test]
    fn pods_and_containers_are_named() {
        let list: PodList = serde_json::from_str(LIST).expect("a list");
        let names = list.names();
        let uid = "1b2c3d4e-0000-1111-2222-333344445555";
        for (workload, name) in [
            (format!("pod/{uid}/0123456789ab"), Some("shop/web-7d9f/app")),
            (format!("pod/{uid}/aaaaaaaaaaaa"), Some("shop/web-7d9f/wait")),
            (format!("pod/{uid}/cccccccccccc"), Some("shop/web-7d9f/debug")),
            (format!("pod/{uid}"), Some("shop/web-7d9f")),
            (format!("pod/{uid}/eeeeeeeeeeee"), None),
            ("pod/0123456789abcdef0123456789abcdef".into(), Some("kube-system/kube-proxy-node-1")),
            ("container/0123456789ab".into(), None),
        ] {
            assert_eq!(names.of(&workload).as_deref(), name, "{workload}");
        }
    }

    #[test]
    fn an_empty_list_names_nothing() {
        for text in [r#"{"items": []}"#, r#"{"kind": "PodList"}"#] {
            let list: PodList = serde_json::from_str(text).expect("a list");
            assert_eq!(list.names().of("pod/x"), None);
        }
    }
}
