// The check must be able to fail: each of these has one fault, and the compiler complains where it finds none.
import type { Dashboard } from './dashboard';

type Panel = Dashboard['panels'][number];
type Of<Kind> = Extract<Panel, { type: Kind }>;

// @ts-expect-error: no field of a dashboard
export const field: Pick<Dashboard, 'title'> = { title: 'a', titel: 'b' };
// @ts-expect-error: no kind of panel
export const kind: Panel['type'] = 'graph';
// @ts-expect-error: no unit
export const unit: Of<'stat'>['fieldConfig']['defaults']['unit'] = 'parsec per fortnight';
// @ts-expect-error: no place of a legend
export const place: Of<'timeseries'>['options']['legend']['placement'] = 'left';
// @ts-expect-error: an option of another kind of panel
export const option: Pick<Of<'stat'>['options'], 'colorMode'> = { colorMode: 'background', cellHeight: 'sm' };
// @ts-expect-error: no way to draw
export const drawn: Of<'timeseries'>['fieldConfig']['defaults']['custom']['drawStyle'] = 'pie';
// @ts-expect-error: no kind of variable
export const variable: NonNullable<Dashboard['templating']['list']>[number]['type'] = 'question';
