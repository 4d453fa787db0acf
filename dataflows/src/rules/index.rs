//! Which rules a row may be like: those that fix the text of a column are found by the row's text in it, the others are all asked.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use radarflow_language::cells::Cells;
use radarflow_reconcile::rules::Rule;

/// The rules of one tenant over one table.
#[derive(Default)]
pub(super) struct Index {
    rules: BTreeMap<String, Rule>,
    /// By column and text.
    fixed: BTreeMap<&'static str, BTreeMap<String, BTreeSet<String>>>,
    /// Those that fix nothing.
    rest: BTreeSet<String>,
}

impl Index {
    pub(super) fn insert(&mut self, rule: Rule) {
        self.remove(&rule.name);
        match rule.filter.fixes() {
            Some((column, texts)) => {
                let by_text = self.fixed.entry(column).or_default();
                for text in texts {
                    by_text.entry(text.clone()).or_default().insert(rule.name.clone());
                }
            }
            None => drop(self.rest.insert(rule.name.clone())),
        }
        self.rules.insert(rule.name.clone(), rule);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Rule> {
        let rule = self.rules.remove(name)?;
        self.rest.remove(name);
        if let Some((column, texts)) = rule.filter.fixes()
            && let Some(by_text) = self.fixed.get_mut(column)
        {
            for text in texts {
                if let Some(names) = by_text.get_mut(text) {
                    names.remove(name);
                    if names.is_empty() {
                        by_text.remove(text);
                    }
                }
            }
            if by_text.is_empty() {
                self.fixed.remove(column);
            }
        }
        Some(rule)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Rule> {
        self.rules.get(name)
    }

    /// Each rule with the rows of a batch that may be like it.
    pub(super) fn candidates(&self, batch: &RecordBatch) -> Vec<(&Rule, Vec<usize>)> {
        let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (column, by_text) in &self.fixed {
            let cells = Cells::of(batch, column);
            for row in 0..batch.num_rows() {
                let mut add = |text: &str| {
                    for name in by_text.get(text).into_iter().flatten() {
                        let rows = found.entry(name).or_default();
                        if rows.last() != Some(&row) {
                            rows.push(row);
                        }
                    }
                };
                match cells {
                    Cells::List(..) | Cells::Map(..) => cells.texts(row).for_each(add),
                    _ => drop(cells.text(row).map(&mut add)),
                }
            }
        }
        let fixed = found.into_iter().filter_map(|(name, rows)| Some((self.rules.get(name)?, rows)));
        let rest = self.rest.iter().filter_map(|name| self.rules.get(name));
        rest.map(|rule| (rule, (0..batch.num_rows()).collect())).chain(fixed).collect()
    }
}
