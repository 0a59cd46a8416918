// Each object of monitors.json by the rules for its kind; objects with a fault must be refused.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor';
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';

const KINDS = { PodMonitor, ServiceMonitor };
const FAULTS = [
  ['PodMonitor', { selector: {}, podMetricsEndpoints: [{ interval: 'often' }] }],
  ['PodMonitor', { selector: {}, podMetricsEndpoints: [{ port: 1 }] }],
  ['PodMonitor', { podMetricsEndpoints: [{ port: 'metrics' }] }],
  ['ServiceMonitor', { selector: {}, endpoints: [{ scheme: 'ftp' }] }],
  ['ServiceMonitor', { selector: {}, endpoints: {} }],
];

for (const object of JSON.parse(readFileSync('monitors.json', 'utf8'))) new KINDS[object.kind](object).validate();
for (const [kind, spec] of FAULTS) {
  const faulty = new KINDS[kind]({ metadata: { name: 'faulty' }, spec });
  assert.throws(() => faulty.validate(), `the rules let ${JSON.stringify(spec)} pass`);
}
