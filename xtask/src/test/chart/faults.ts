// The check must be able to fail: each of these has one fault, and the compiler complains where it finds none.
import type { IPodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor';
import type { IServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';

type Pods = IPodMonitor['spec'];
type Services = IServiceMonitor['spec'];

// @ts-expect-error: no field of an endpoint
export const field: Pods = { selector: {}, podMetricsEndpoints: [{ port: 'metrics', intervall: '15s' }] };
// @ts-expect-error: a field of the other kind
export const other: Services = { selector: {}, podMetricsEndpoints: [{ port: 'metrics' }] };
// @ts-expect-error: no scheme
export const scheme: Services = { selector: {}, endpoints: [{ port: 'metrics', scheme: 'ftp' }] };
// @ts-expect-error: no field of a secret
export const secret: Pods = { selector: {}, podMetricsEndpoints: [{ basicAuth: { password: { secretName: 'a', key: 'b' } } }] };
