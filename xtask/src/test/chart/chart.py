"""Lints the Helm chart with Helm itself, validates what it renders against Kubernetes' schemas, and holds the plain manifests
to it. Arguments: the chart's directory, that of the plain manifests, and "write" to write these instead."""

import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

CHART, PLAIN = map(pathlib.Path, sys.argv[1:3])
WRITE = sys.argv[3:] == ["write"]
# What the plain manifests are rendered with, by file.
PLAIN_VALUES = {
    "finwatch.yaml": {},
    "finwatch-all-namespaces.yaml": {"otherNamespaces": True},
}
MONITORED = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
EVERYTHING = {
    **MONITORED,
    "otherNamespaces": True,
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
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
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


def main():
    findings = helm.lint(str(CHART), strict=True)
    worse = [message for message in findings["messages"] if message["severity"] > ADVICE]
    if worse or findings["errors"] or findings["total_charts_linted"] != 1:
        sys.exit(f"lint: {findings}")
    with helm.Chart.load(str(CHART)) as chart:
        for values in [{"port": 0}, {"otherNamespace": True}, {"podMonitor": {"interval": "often"}}]:
            refuses(chart, values)
        checked = sum(validate(rendered(chart, values)) for values in [*PLAIN_VALUES.values(), MONITORED, EVERYTHING])
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
