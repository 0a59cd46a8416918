//! What the screen shows, and what keys and readings do to it. Pure: neither terminal nor daemon.

use crossterm::event::{KeyCode, KeyEvent};

use super::{
    keys::{self, Action},
    rates::Rates,
    rows::{Column, Order, Row, rows},
};
use crate::{
    model::{incident::IncidentRecord, labels::Labels, observation::Observation, sums::Sums},
    triage::{finding::Finding, findings},
};

/// One look at everything.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What happened in the window, and how things stand.
    pub observation: Observation,
    /// What every pair has counted in all.
    pub sums: Sums,
    /// The incidents that are kept, oldest first.
    pub incidents: Vec<IncidentRecord>,
}

/// What lies over the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing.
    Table,
    /// The line in which the filter is typed.
    Filter,
    /// The selected pair; so many lines are scrolled away.
    Detail(usize),
    /// The keys.
    Help,
}

/// The screen.
#[derive(Debug, Default)]
pub struct State {
    /// Where readings come from, and how often.
    pub source: String,
    /// What is shown; `None` before the first reading.
    pub shown: Option<Shown>,
    /// Why there are no readings at present.
    pub problem: Option<String>,
    /// Whether it stands still.
    pub paused: bool,
    /// How the table is sorted.
    pub order: Order,
    /// Only pairs with this text are shown.
    pub filter: String,
    view: Option<View>,
    selected: Option<Labels>,
    rates: Rates,
}

/// A reading as it is shown.
#[derive(Debug)]
pub struct Shown {
    /// What happened in the window.
    pub observation: Observation,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// The table.
    pub rows: Vec<Row>,
    /// The rates as they were then.
    pub rates: Rates,
    /// The incidents that are kept, oldest first.
    pub incidents: Vec<IncidentRecord>,
}

impl State {
    /// An empty screen.
    pub fn new(source: String) -> Self {
        Self { source, ..Self::default() }
    }

    /// Takes in a reading.
    pub fn read(&mut self, reading: Reading) {
        self.problem = None;
        self.rates.add(reading.sums);
        if self.paused && self.shown.is_some() {
            return;
        }
        self.shown = Some(Shown {
            findings: findings(&reading.observation),
            observation: reading.observation,
            rows: Vec::new(),
            incidents: reading.incidents,
            rates: self.rates.clone(),
        });
        self.arrange();
    }

    /// There is no reading. What was read last stays in sight; where the daemon is gone, rates begin anew.
    pub fn fail(&mut self, problem: String, gone: bool) {
        self.problem = Some(problem);
        if gone {
            self.rates.begin_anew();
        }
    }

    /// What lies over the table.
    pub fn view(&self) -> View {
        self.view.unwrap_or(View::Table)
    }

    /// The selected row's place.
    pub fn selected(&self) -> Option<usize> {
        let rows = &self.shown.as_ref()?.rows;
        rows.iter().position(|row| Some(&row.pair.labels) == self.selected.as_ref())
    }

    /// The selected row.
    pub fn selected_row(&self) -> Option<&Row> {
        self.shown.as_ref()?.rows.get(self.selected()?)
    }

    /// Takes in a key; `false` when it asks to quit.
    pub fn press(&mut self, key: &KeyEvent) -> bool {
        if self.view() == View::Filter && !keys::is_interrupt(key) {
            self.type_filter(key);
            return true;
        }
        let Some(action) = keys::action(key) else { return true };
        match (action, self.view()) {
            (Action::Quit, _) | (Action::Back, View::Table) => return false,
            (Action::Back, _) | (Action::Help, View::Help) => self.view = None,
            (Action::Help, _) => self.view = Some(View::Help),
            (Action::Pause, _) => self.paused = !self.paused,
            (Action::Move(by), View::Detail(line)) => {
                self.view = Some(View::Detail(line.saturating_add_signed(by)));
            }
            (Action::Move(by), View::Table) => self.go(|at, _| at.saturating_add_signed(by)),
            (Action::First, View::Table) => self.go(|_, _| 0),
            (Action::Last, View::Table) => self.go(|_, last| last),
            (Action::Open, View::Table) => {
                self.view = self.selected().map(|_| View::Detail(0));
            }
            (Action::Filter, View::Table) => self.view = Some(View::Filter),
            (Action::Sort(by), View::Table) => self.sort(by),
            (Action::Reverse, View::Table) => {
                self.order.reversed = !self.order.reversed;
                self.arrange();
            }
            _ => {}
        }
        true
    }

    fn type_filter(&mut self, key: &KeyEvent) {
        match key.code {
            KeyCode::Enter => self.view = None,
            KeyCode::Esc => {
                self.filter.clear();
                self.view = None;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(typed) => self.filter.push(typed),
            _ => {}
        }
        self.arrange();
    }

    fn sort(&mut self, by: isize) {
        let count = Column::ALL.len();
        let at = Column::ALL.iter().position(|column| *column == self.order.column).unwrap_or(0);
        let next = (at + count).saturating_add_signed(by) % count;
        self.order = Order { column: Column::ALL[next], reversed: false };
        self.arrange();
    }

    /// Makes the rows anew. The selection follows its pair; where that is gone it stays where it was.
    fn arrange(&mut self) {
        let at = self.selected().unwrap_or(0);
        let (filter, order) = (self.filter.clone(), self.order);
        let Some(shown) = &mut self.shown else { return };
        shown.rows = rows(&shown.observation, &shown.rates, &filter, order);
        if self.selected().is_none() {
            self.go(|_, _| at);
        }
    }

    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let at = self.selected().unwrap_or(0);
        let Some(shown) = &self.shown else { return };
        let last = shown.rows.len().saturating_sub(1);
        let row = shown.rows.get(to(at, last).min(last));
        self.selected = row.map(|row| row.pair.labels.clone());
    }
}

#[cfg(test)]
pub(crate) mod tests;
