{{- define "finwatch.selector" -}}
app.kubernetes.io/name: finwatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finwatch.labels" -}}
{{ include "finwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- /* The kubelet shows no certificate and knows no password: with a web config it only sees that the port is open. */}}
{{- define "finwatch.probe" -}}
{{- if .values.webConfig.secretName -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- end }}
{{- end }}

{{- /* How Prometheus scrapes, the same for both kinds of monitor. */}}
{{- define "finwatch.endpoint" -}}
port: metrics
interval: {{ .interval }}
scheme: {{ .scheme }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
# A series' instance is the node, not the pod, which changes with each version.
relabelings:
  - sourceLabels:
      - __meta_kubernetes_pod_node_name
    targetLabel: instance
{{- end }}
