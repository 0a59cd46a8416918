"""Lints the Helm chart with Helm itself, validates what it renders against Kubernetes' schemas, and holds the plain manifests
to it. Arguments: the chart's directory, that of the plain manifests, a file to write the objects of the Prometheus operator to,
which others judge, and "write" to write the plain manifests instead."""

import json
import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

CHART, PLAIN, MONITORS = map(pathlib.Path, sys.argv[1:4])
WRITE = sys.argv[4:] == ["write"]
OPERATOR = "monitoring.coreos.com/"
# What the plain manifests are rendered with, by file.
PLAIN_VALUES = {
    "finwatch.yaml": {},
    "finwatch-all-namespaces.yaml": {"otherNamespaces": True},
}
MONITORED = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
SCRAPED = {
    "scheme": "https",
    "tlsConfig": {"ca": {"secret": {"name": "finwatch-ca", "key": "ca.crt"}}, "serverName": "finwatch"},
    "basicAuth": {
        "username": {"name": "finwatch-scraper", "key": "username"},
        "password": {"name": "finwatch-scraper", "key": "password"},
    },
}
GUARDED = {
    "webConfig": {"secretName": "finwatch-web"},
    "podMonitor": {"enabled": True, **SCRAPED},
    "serviceMonitor": {"enabled": True, **SCRAPED},
}
NAMELESS = {"kubernetes": False}
TRACKING = {"conntrack": True}
EVERYTHING = {
    **MONITORED,
    **GUARDED,
    "otherNamespaces": True,
    **TRACKING,
    "config": {"max-pairs": 8192, "exclude-port": [22, 10250]},
    "priorityClassName": "system-node-critical",
    "podAnnotations": {"note": "x"},
}
# Helm's severity of what is no warning: a chart without an icon.
ADVICE = 1
KUBERNETES = ["1.27", "1.30", "1.33", "1.37"]
NOTE = "# Rendered from deploy/helm/finwatch, which a test holds it to. kubectl apply -f this file.\n"
FIRST = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "finwatch"}}


def rendered(chart, values):
    files = chart.render(values, name="finwatch", namespace="finwatch")
    texts = (files[name] for name in sorted(files) if name.endswith(".yaml"))
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def validate(documents):
    checked = 0
    for document in documents:
        if document["apiVersion"].startswith(OPERATOR):
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    return checked


def refuses(chart, values):
    try:
        chart.validate_schema(values)
    except helm.HelmError:
        return
    sys.exit(f"values.schema.json lets {values} pass")


def only(documents, kind):
    [document] = [document for document in documents if document["kind"] == kind]
    return document


def check_guarded(documents):
    """Nobody but root reads the secret, no probe needs it, and Prometheus is told."""
    pod = only(documents, "DaemonSet")["spec"]["template"]["spec"]
    [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret == {"secretName": "finwatch-web", "defaultMode": 0o440}, secret
    [container] = pod["containers"]
    assert "--web-config=/etc/finwatch-web/web.yml" in container["args"], container["args"]
    for probe in ["livenessProbe", "readinessProbe"]:
        assert container[probe] == {"tcpSocket": {"port": "metrics"}}, container[probe]
    for kind, endpoints in [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]:
        [endpoint] = only(documents, kind)["spec"][endpoints]
        assert endpoint.items() >= SCRAPED.items(), endpoint


def check_nameless(documents):
    """Who asks for no names has no token and no role."""
    kinds = {document["kind"] for document in documents}
    assert kinds == {"ConfigMap", "DaemonSet", "ServiceAccount"}, kinds
    pod = only(documents, "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False and "env" not in container, pod
    assert "--kubernetes" not in container["args"], container["args"]


def check_tracking(documents, wanted):
    """Who asks connection tracking is told to, and may; nobody else may."""
    [container] = only(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    added = container["securityContext"]["capabilities"]["add"]
    told = ["--conntrack" in container["args"], "NET_ADMIN" in added]
    assert told == [wanted, wanted], container


def main():
    findings = helm.lint(str(CHART), strict=True)
    worse = [message for message in findings["messages"] if message["severity"] > ADVICE]
    if worse or findings["errors"] or findings["total_charts_linted"] != 1:
        sys.exit(f"lint: {findings}")
    with helm.Chart.load(str(CHART)) as chart:
        for values in [{"port": 0}, {"otherNamespace": True}, {"podMonitor": {"interval": "often"}}, {"kubernetes": 1}, {"conntrack": "yes"}, {"webConfig": "x"}]:
            refuses(chart, values)
        variants = [*PLAIN_VALUES.values(), MONITORED, GUARDED, NAMELESS, TRACKING, EVERYTHING]
        documents = [rendered(chart, values) for values in variants]
        checked = sum(map(validate, documents))
        monitors = [one for all in documents for one in all if one["apiVersion"].startswith(OPERATOR)]
        MONITORS.write_text(json.dumps(monitors))
        check_guarded(rendered(chart, GUARDED))
        check_nameless(rendered(chart, NAMELESS))
        check_tracking(rendered(chart, TRACKING), True)
        check_tracking(rendered(chart, {}), False)
        print(f"schemas: {checked} documents of Kubernetes {', '.join(KUBERNETES)}")
        for file, values in PLAIN_VALUES.items():
            documents = [FIRST, *rendered(chart, values)]
            path = PLAIN / file
            if WRITE:
                path.write_text(NOTE + yaml.safe_dump_all(documents, sort_keys=False))
            if list(yaml.safe_load_all(path.read_text())) != documents:
                sys.exit(f"{path} is not what the chart renders")
            print(f"{file}: as rendered")


main()
