// What Grafana publishes as the types of a dashboard, as strict as they can be for a file: enums by their values, panels
// with the options of their kind, units that exist. A file that is assigned to it may have no field that Grafana has not.
import type * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import type * as common from '@grafana/grafana-foundation-sdk/common';
import type * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import type * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import type * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import type * as stat from '@grafana/grafana-foundation-sdk/stat';
import type * as table from '@grafana/grafana-foundation-sdk/table';
import type * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import type * as units from '@grafana/grafana-foundation-sdk/units';

// An enum of strings takes no literal; what is left open stays open.
type Json<T> = 0 extends 1 & T ? any
  : T extends string ? `${T}`
  : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T as K extends '_implementsDataqueryVariant' ? never : K]: Json<T[K]> }
  : T;

type Unit = Extract<(typeof units)[keyof typeof units], string>;

// The published type of these links is that of a dashboard's links, which have more.
interface DataLink { title: string; url: string; targetBlank: boolean }

type Panel<Kind, Options, Custom> = Json<Omit<dashboard.Panel, 'type' | 'targets' | 'options' | 'fieldConfig'>> & {
  type: Kind;
  description: string;
  options: Json<Options>;
  targets: Json<prometheus.Dataquery>[];
  fieldConfig: {
    defaults: Json<Omit<dashboard.FieldConfig, 'unit' | 'custom' | 'links'>> & {
      unit: Unit;
      custom: Json<Custom>;
      links: DataLink[];
    };
    overrides: Json<dashboard.FieldConfigSource['overrides']>;
  };
};

export type Dashboard = Json<Omit<dashboard.Dashboard, 'panels'>> & {
  panels: (
    | Json<dashboard.RowPanel>
    | Panel<'stat', stat.Options, {}>
    | Panel<'bargauge', bargauge.Options, {}>
    | Panel<'timeseries', timeseries.Options, timeseries.FieldConfig>
    | Panel<'table', table.Options, common.TableFieldOptions>
    | Panel<'heatmap', heatmap.Options, heatmap.FieldConfig>
  )[];
};
