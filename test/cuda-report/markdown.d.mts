import type { Report } from './report.mjs';
export function markdown(report: Report): string;
