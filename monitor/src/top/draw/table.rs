//! The table of pairs.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    style::{Style, Stylize as _},
    text::{Line, Text},
    widgets::{Cell, Row as Drawn, Table, TableState},
};

use super::graph;
use crate::top::{
    rows::{Column, Row},
    state::{Shown, State},
};

/// The pair's name has at least so much room; columns that leave it less are left out.
const LEAST_NAME: u16 = 24;
/// The graph has room where this much is left for the name.
const ROOMY_NAME: u16 = 40;
/// Columns of the graph.
const GRAPH: u16 = 16;
/// Columns in the order in which they are given up last.
const BY_WORTH: [Column; 9] = [
    Column::Lost,
    Column::Opened,
    Column::Closer,
    Column::Open,
    Column::Busy,
    Column::TimeWait,
    Column::Resets,
    Column::Idle,
    Column::Ports,
];

const fn width(column: Column) -> u16 {
    match column {
        Column::Pair => LEAST_NAME,
        Column::Opened | Column::TimeWait => 6,
        Column::Open | Column::Busy | Column::Idle | Column::Ports | Column::Lost | Column::Resets => 5,
        Column::Closer => 13,
    }
}

/// Which columns have room in `total`, and what is left for the name. The one that sorts always has.
fn fitting(total: u16, sorting: Column) -> (Vec<Column>, u16) {
    let mut left = total;
    let mut chosen = vec![Column::Pair];
    let wanted = [sorting].into_iter().chain(BY_WORTH).filter(|column| *column != Column::Pair);
    for column in wanted {
        let takes = width(column) + 1;
        if !chosen.contains(&column) && (left >= LEAST_NAME + takes || column == sorting) {
            chosen.push(column);
            left = left.saturating_sub(takes);
        }
    }
    (Column::ALL.into_iter().filter(|column| chosen.contains(column)).collect(), left)
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, shown: &Shown, area: Rect) {
    let (columns, name) = fitting(area.width, state.order.column);
    let graphs = name > ROOMY_NAME + GRAPH;
    let name = if graphs { name - GRAPH - 1 } else { name };
    let widths = columns.iter().map(|column| if *column == Column::Pair { name } else { width(*column) });
    let widths = widths.chain(graphs.then_some(GRAPH)).map(Constraint::Length);
    let heading = columns.iter().map(|column| {
        let mut style = Style::new().bold();
        if *column == state.order.column {
            style = style.reversed();
        }
        aligned(*column, column.title().into()).style(style)
    });
    let heading = heading.chain(graphs.then(|| Cell::from("opened/s").bold()));
    let rows = shown.rows.iter().map(|row| {
        let cells = columns.iter().map(|column| match column {
            Column::Pair => aligned(*column, fitted(row, usize::from(name))),
            _ => aligned(*column, column.text(row)),
        });
        let values: Vec<f64> = row.rates.iter().map(|rate| rate.opened).collect();
        Drawn::new(cells.chain(graphs.then(|| Cell::from(graph(&values, usize::from(GRAPH))))))
    });
    let table =
        Table::new(rows, widths).header(Drawn::new(heading)).row_highlight_style(Style::new().reversed());
    let mut at = TableState::new().with_selected(state.selected());
    frame.render_stateful_widget(table, area, &mut at);
}

/// The pair's name; where it is too long, the process's is shortened before the address.
fn fitted(row: &Row, columns: usize) -> String {
    let name = row.name();
    let labels = &row.pair.labels;
    let over = name.chars().count().saturating_sub(columns);
    let kept = labels.proxy.chars().count().saturating_sub(over + 1);
    if over == 0 || kept == 0 {
        return name;
    }
    let start: String = labels.proxy.chars().take(kept).collect();
    format!("{start}… -> {}", labels.upstream)
}

fn aligned(column: Column, text: String) -> Cell<'static> {
    let alignment = match column {
        Column::Pair | Column::Closer => Alignment::Left,
        _ => Alignment::Right,
    };
    Cell::from(Text::from(Line::raw(text).alignment(alignment)))
}
