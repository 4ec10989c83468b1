//! What comes out: rows with a cell per contestant, and goals; as a table, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::contestants::{COLUMNS, Contestant};
use crate::statistics::Series;

/// Which values of a row are the good ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What a row says of one contestant.
pub(crate) enum Cell {
    /// Measured round by round; with the TPM commands of one operation, where they were counted.
    Measured { series: Series, commands: Option<f64> },
    /// Counted or read, the same each time.
    Exact(f64),
    /// It cannot do this, as it shows or says.
    Failed(String),
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// What is not about speed is not compared with the peers.
    informative: bool,
    cells: Vec<(Contestant, Cell)>,
}

/// Something to reach.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) value: f64,
    pub(crate) met: bool,
}

/// Everything that came out.
#[derive(Default)]
pub(crate) struct Report {
    /// What is told beside, a line each.
    pub(crate) notes: Vec<String>,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, better: Better) -> Self {
        Self { name: name.into(), unit, better, informative: false, cells: Vec::new() }
    }

    /// One that tells more than it compares.
    pub(crate) fn informative(name: impl Into<String>, unit: &'static str) -> Self {
        Self { informative: true, ..Self::new(name, unit, Better::Lower) }
    }

    /// Adds what was measured of a contestant.
    pub(crate) fn measured(&mut self, who: Contestant, series: Result<Series, String>, commands: Option<f64>) {
        let cell = series.map_or_else(Cell::Failed, |series| Cell::Measured { series, commands });
        self.cells.push((who, cell));
    }

    /// Adds what is the same each time.
    pub(crate) fn exact(&mut self, who: Contestant, value: Result<f64, String>) {
        self.cells.push((who, value.map_or_else(Cell::Failed, Cell::Exact)));
    }

    fn cell(&self, who: Contestant) -> Option<&Cell> {
        self.cells.iter().find(|(contestant, _)| *contestant == who).map(|(_, cell)| cell)
    }

    fn ratio(&self, ours: Contestant, theirs: Contestant) -> Option<f64> {
        match (self.cell(ours)?, self.cell(theirs)?) {
            (Cell::Measured { series, .. }, Cell::Measured { series: other, .. }) => Some(series.ratio_to(other)),
            (Cell::Exact(value), Cell::Exact(other)) => Some(value / other),
            _ => None,
        }
    }
}

impl Report {
    /// Adds a row.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a goal: a value that must be at least, or at most, as large as told.
    pub(crate) fn goal(&mut self, what: impl Into<String>, value: f64, better: Better, limit: f64) {
        let (sign, met) = match better {
            Better::Higher => (">=", value >= limit),
            Better::Lower => ("<=", value <= limit),
        };
        self.goals.push(Goal { what: what.into(), wanted: format!("{sign} {limit}"), value, met });
    }

    /// Adds the goals that every row has: ours do the job, and no slower than the peers that do it, too.
    pub(crate) fn compare_with_peers(&mut self) {
        // A hundredth is within what two runs of the same thing differ by.
        const NOISE: f64 = 0.01;
        let mut worst: Option<(f64, String)> = None;
        for row in self.rows.iter().filter(|row| !row.informative) {
            for (who, cell) in &row.cells {
                if let (true, Cell::Failed(reason)) = (who.is_ours() || *who == Contestant::Limit, cell) {
                    let what = format!("{}: {} does it ({reason})", row.name, who.title());
                    self.goals.push(Goal { what, wanted: "yes".into(), value: f64::NAN, met: false });
                }
            }
            for (ours, theirs) in Contestant::PEERS {
                let Some(ratio) = row.ratio(ours, theirs) else { continue };
                let advantage = if row.better == Better::Higher { ratio } else { 1.0 / ratio };
                if worst.as_ref().is_none_or(|(least, _)| advantage < *least) {
                    worst = Some((advantage, format!("{}: {} against {}", row.name, ours.title(), theirs.title())));
                }
                if advantage < 1.0 - NOISE {
                    let what = format!("no worse than {} ({}, {})", theirs.title(), row.name, ours.title());
                    self.goals.push(Goal { what, wanted: ">= 1".into(), value: advantage, met: false });
                }
            }
        }
        if let Some((advantage, which)) = worst.filter(|(advantage, _)| *advantage >= 1.0 - NOISE) {
            let what = format!("no worse than a peer in any row (closest: {which})");
            self.goals.push(Goal { what, wanted: ">= 1".into(), value: advantage, met: true });
        }
    }

    /// How many goals are missed.
    pub(crate) fn missed(&self) -> usize {
        self.goals.iter().filter(|goal| !goal.met).count()
    }

    /// The table.
    pub(crate) fn to_text(&self) -> String {
        let filled = |who: &Contestant| self.rows.iter().any(|row| row.cell(*who).is_some());
        let columns: Vec<_> = COLUMNS.into_iter().filter(filled).collect();
        let mut lines = vec![header(&columns)];
        lines.extend(self.rows.iter().map(|row| row.to_text(&columns)));
        let mut text = aligned(&lines);
        text += "\nEach cell: median, its spread (half the distance between the quartiles), [TPM commands of one \
                 operation]; 'limit' is the raw ESYS loop, or what the row names after 'against'.\n";
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let mut goals = vec![["goal", "wanted", "value", ""].map(String::from).to_vec()];
        let verdict = |goal: &Goal| if goal.met { "met" } else { "MISSED" };
        goals.extend(self.goals.iter().map(|goal| {
            vec![goal.what.clone(), goal.wanted.clone(), format!("{:.3}", goal.value), verdict(goal).into()]
        }));
        text + "\n" + &aligned(&goals)
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let goals = self
            .goals
            .iter()
            .map(|goal| json!({ "goal": goal.what, "wanted": goal.wanted, "value": goal.value, "met": goal.met }));
        json!({ "rows": rows, "goals": goals.collect::<Vec<_>>(), "notes": self.notes })
    }
}

impl Row {
    fn to_text(&self, columns: &[Contestant]) -> Vec<String> {
        let cells = columns.iter().map(|who| self.cell(*who).map_or_else(|| "-".into(), Cell::to_text));
        [self.name.clone(), self.unit.into()].into_iter().chain(cells).collect()
    }

    fn to_json(&self) -> Value {
        let better = if self.better == Better::Higher { "higher" } else { "lower" };
        let cells = self.cells.iter().map(|(who, cell)| (who.title().to_owned(), cell.to_json())).collect();
        json!({ "row": self.name, "unit": self.unit, "better": better, "cells": Value::Object(cells) })
    }
}

impl Cell {
    fn to_text(&self) -> String {
        match self {
            Self::Measured { series, commands } => {
                let commands = commands.map_or_else(String::new, |count| format!(" [{}]", number(count)));
                format!("{} ±{:.0}%{commands}", number(series.median()), series.spread() * 100.0)
            }
            Self::Exact(value) => number(*value),
            Self::Failed(reason) => format!("fails: {}", reason.chars().take(24).collect::<String>()),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Measured { series, commands } => json!({
                "median": series.median(), "spread": series.spread(), "values": series.0, "commands": commands,
            }),
            Self::Exact(value) => json!({ "value": value }),
            Self::Failed(reason) => json!({ "failed": reason }),
        }
    }
}

fn header(columns: &[Contestant]) -> Vec<String> {
    ["", "unit"].into_iter().chain(columns.iter().map(|who| who.title())).map(String::from).collect()
}

/// Three significant digits, but whole numbers in full.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || (value - value.round()).abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Columns side by side; the first one to the left, the others too, as they mix numbers and words.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let missing = width(column).unwrap_or_default() - cell.chars().count();
            format!("{cell}{}", " ".repeat(missing))
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
