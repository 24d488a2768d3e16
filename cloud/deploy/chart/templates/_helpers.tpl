{{- /* Of every object that is CloudCore's program. Helm and keadm add to all objects whose they are. */ -}}
{{- define "cloudcore.labels" -}}
k8s-app: kubeedge
kubeedge: cloudcore
app.kubernetes.io/name: cloudcore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "cloudcore.image" -}}
{{ .Values.cloudCore.image.repository }}:{{ .Values.cloudCore.image.tag | default (printf "v%s" .Chart.AppVersion) }}
{{- end -}}

{{- /* In it are CloudCore's CA and its account: whoever may do something there may be CloudCore. */ -}}
{{- define "cloudcore.checkNamespace" -}}
{{- if has .Release.Namespace (splitList " " "default kube-system kube-public kube-node-lease kubehive-nodes") -}}
{{- fail (printf "CloudCore has a namespace of its own, and %s is for others: use `--namespace kubeedge --create-namespace`, or another one beside KubeEdge's CloudCore" .Release.Namespace) -}}
{{- end -}}
{{- end -}}

{{- /* Before the names of what lies in no namespace, or in one that is for others, too. KubeEdge's own CloudCore is in kubeedge, and has a
ClusterRole and a ClusterRoleBinding `cloudcore`: one of ours in another namespace stands beside it. */ -}}
{{- define "cloudcore.prefix" -}}
{{- if ne .Release.Namespace "kubeedge" }}{{ .Release.Namespace }}-{{ end -}}
{{- end -}}

{{- /* The conditions below are `true` or nothing. `helm template` knows no cluster's kinds, not even pods: there the version tells. */ -}}
{{- define "cloudcore.hasPolicies" -}}
{{- $offline := not (has "v1/Pod" .Capabilities.APIVersions) -}}
{{- $has := has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" .Capabilities.APIVersions -}}
{{- $has = or $has (and $offline (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version)) -}}
{{- if or (eq (toString .Values.policies.enable) "true") (and (eq (toString .Values.policies.enable) "auto") $has) -}}true{{- end -}}
{{- end -}}

{{- define "cloudcore.keepsPods" -}}
{{- $offline := not (has "v1/Pod" .Capabilities.APIVersions) -}}
{{- $has := has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" .Capabilities.APIVersions -}}
{{- $has = or $has (and $offline (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version)) -}}
{{- $policies := include "cloudcore.hasPolicies" . -}}
{{- if and $policies (or (eq (toString .Values.policies.keepPods) "true") (and (eq (toString .Values.policies.keepPods) "auto") $has)) -}}true{{- end -}}
{{- end -}}

{{- define "cloudcore.makesMirrors" -}}
{{- $policies := include "cloudcore.hasPolicies" . -}}
{{- if or (eq (toString .Values.rbac.mirrors) "true") (and (eq (toString .Values.rbac.mirrors) "auto") $policies) -}}true{{- end -}}
{{- end -}}

{{- define "cloudcore.readsSecrets" -}}
{{- $older := semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- if or (eq (toString .Values.rbac.secrets) "true") (and (eq (toString .Values.rbac.secrets) "auto") $older) -}}true{{- end -}}
{{- end -}}

{{- /* Those that are here for a right that a policy bounds are not without it. */ -}}
{{- define "cloudcore.asksForCertificates" -}}
{{- $policies := include "cloudcore.hasPolicies" . -}}
{{- $signer := .Values.cloudCore.modules.cloudStream.kubeletEndpoint.certificate.signerName -}}
{{- if and $signer (not $policies) -}}
{{- fail "cloudCore.modules.cloudStream.kubeletEndpoint.certificate.signerName needs policies.enable, which bounds what CloudCore may ask for" -}}
{{- end -}}
{{- if $signer -}}true{{- end -}}
{{- end -}}

{{- define "cloudcore.checksEndpoint" -}}
{{- $policies := include "cloudcore.hasPolicies" . -}}
{{- if and .Values.rbac.endpointCheckNodes (not $policies) -}}
{{- fail "rbac.endpointCheckNodes needs policies.enable, which bounds what CloudCore may ask the nodes for" -}}
{{- end -}}
{{- if .Values.rbac.endpointCheckNodes -}}true{{- end -}}
{{- end -}}

{{- /* Whether the pods share what is of their host. */ -}}
{{- define "cloudcore.onHost" -}}
{{- if or .Values.cloudCore.hostNetWork .Values.cloudCore.hostPorts -}}true{{- end -}}
{{- end -}}

{{- /* Of a Service, from cloudCore.service. */ -}}
{{- define "cloudcore.serviceSpec" -}}
type: {{ .type }}
# A link that moves to another port behind a NAT is known only to the CloudCore that has it.
sessionAffinity: ClientIP
selector: {k8s-app: kubeedge, kubeedge: cloudcore}
{{- with .externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . | quote }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "cloudcore.servicePort" -}}
{{- $nodePort := int .nodePort -}}
- name: {{ .name }}
  port: {{ int .port }}
  protocol: {{ .protocol }}
  {{- if and .hasNodePorts $nodePort }}
  nodePort: {{ $nodePort }}
  {{- end }}
{{- end -}}
