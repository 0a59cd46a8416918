//! Draws the screen.

mod detail;
mod table;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::bar,
    text::{Line, Span, Text},
    widgets::{Clear, Paragraph, Wrap},
};

use super::{
    keys::KEYS,
    rates::Rate,
    rows::per_second,
    state::{Shown, State, View},
};
use crate::triage::finding::{Finding, HarmClass};

/// Where there is less room, the verdict has one line.
const ROOMY: u16 = 15;

/// Draws all of it. Without `color`, weight and inversion have to do.
pub fn draw(frame: &mut Frame<'_>, state: &State, color: bool) {
    let verdict = if frame.area().height < ROOMY { 1 } else { 2 };
    let rows = [1, verdict, 1].map(Constraint::Length);
    let [head, headline, graphs, body, foot] =
        Layout::vertical(rows.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]))
            .areas(frame.area());
    frame.render_widget(heading(state, color), head);
    if let Some(shown) = &state.shown {
        frame.render_widget(verdict_of(&shown.findings, color), headline);
        draw_graphs(frame, shown, graphs);
        match (state.view(), state.selected_row()) {
            (View::Detail(line), Some(row)) => detail::draw(frame, row, &shown.incidents, line, body),
            _ => table::draw(frame, state, shown, body),
        }
    }
    if state.view() == View::Help {
        draw_help(frame, body);
    }
    frame.render_widget(footer(state), foot);
}

fn heading(state: &State, color: bool) -> Line<'_> {
    let mut line = Line::from(vec![Span::raw("finwatch top").bold(), Span::raw("  ")]);
    if let Some(problem) = &state.problem {
        line.push_span(alarm(format!("{problem} "), color));
    }
    if state.paused {
        line.push_span(Span::raw("PAUSED ").bold().reversed());
    }
    line.push_span(Span::raw(&state.source));
    if !state.filter.is_empty() {
        line.push_span(format!("  only \"{}\"", state.filter));
    }
    line
}

fn alarm(text: String, color: bool) -> Span<'static> {
    let span = Span::raw(text).bold();
    if color { span.fg(Color::Red) } else { span }
}

fn verdict_of(findings: &[Finding], color: bool) -> Paragraph<'_> {
    let Some(first) = findings.first() else { return Paragraph::new("nothing found") };
    let shade = match first.harm.class {
        HarmClass::LostRequests | HarmClass::FailedConnects => Color::Red,
        HarmClass::Imminent | HarmClass::Latent => Color::Yellow,
        HarmClass::Informative => Color::Green,
    };
    let style = if color { Style::new().bold().fg(shade) } else { Style::new().bold() };
    Paragraph::new(Line::styled(first.verdict.as_str(), style)).wrap(Wrap { trim: true })
}

/// One of a rate's numbers.
type Number = fn(&Rate) -> f64;

/// What is drawn over time.
const GRAPHS: [(&str, Number); 3] =
    [("opened/s", |rate| rate.opened), ("lost/s", |rate| rate.lost), ("resets/s", |rate| rate.resets)];

/// What happens on the whole host, three graphs side by side.
fn draw_graphs(frame: &mut Frame<'_>, shown: &Shown, area: Rect) {
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(2).areas(area);
    for ((name, of), area) in GRAPHS.into_iter().zip(areas) {
        let values: Vec<f64> = shown.rates.host().iter().map(of).collect();
        let now = values.last().map_or_else(|| "-".into(), |now| per_second(*now));
        let label = format!("{name} {now} ");
        let room = usize::from(area.width).saturating_sub(label.len());
        frame.render_widget(Line::from(vec![Span::raw(label), Span::raw(graph(&values, room))]), area);
    }
}

/// The last values as bars of one line, the highest of them full. What is above zero shows.
fn graph(values: &[f64], width: usize) -> String {
    let last = &values[values.len().saturating_sub(width)..];
    let most = last.iter().copied().fold(0.0, f64::max);
    let levels = [
        bar::NINE_LEVELS.one_eighth,
        bar::NINE_LEVELS.one_quarter,
        bar::NINE_LEVELS.three_eighths,
        bar::NINE_LEVELS.half,
        bar::NINE_LEVELS.five_eighths,
        bar::NINE_LEVELS.three_quarters,
        bar::NINE_LEVELS.seven_eighths,
    ];
    let bar = |value: &f64| {
        let at = (1_u8..).zip(levels).find(|(eighths, _)| value * 8.0 <= most * f64::from(*eighths));
        if *value > 0.0 { at.map_or(bar::NINE_LEVELS.full, |(_, level)| level) } else { "." }
    };
    last.iter().map(bar).collect()
}

fn footer(state: &State) -> Line<'_> {
    match state.view() {
        View::Filter => Line::raw(format!("/{}_   Enter keeps it, Esc drops it", state.filter)),
        View::Help => Line::raw("Esc back  q quit"),
        View::Detail(_) => Line::raw("Esc back  Up/Down scroll  p pause  q quit"),
        View::Table => {
            Line::raw("q quit  ? help  Enter detail  Left/Right sort  r reverse  / filter  p pause")
        }
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let mut lines: Vec<Line<'_>> =
        KEYS.iter().map(|(key, does)| Line::raw(format!("{key:<12}{does}"))).collect();
    lines.push(Line::default());
    lines.extend(
        [
            "Rates are counts between two readings over the measured time. lost and closed by are",
            "of the whole window; open, t_wait and ports are as of the last walk, and so is what of open is",
            "busy (used within a second, or with a request that waits) and what is idle.",
            "Above the table, a connection with both ends on this host counts at each.",
        ]
        .map(Line::raw),
    );
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(Text::from(lines)).wrap(Wrap { trim: true }), area);
}

#[cfg(test)]
mod tests;
