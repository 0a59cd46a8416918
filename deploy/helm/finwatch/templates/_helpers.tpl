{{- define "finwatch.selector" -}}
app.kubernetes.io/name: finwatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finwatch.labels" -}}
{{ include "finwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
