//! Rules as files say them: YAML, a list `rules`, each with `rule_id`, `priority` (0), `enabled` (true), `when` (fields
//! that all must match, each a pattern or a list of which any may) and `set`.
//!
//! Patterns: of `sys_object_id` an object identifier at or above the device's, of `mac` its beginning, of anything else a
//! text that is found in it, whatever its case; `/…/` is a regular expression.
//!
//! A rule that is wrong is told by file, line and `rule_id`; the others stay.

use std::collections::BTreeMap;

use radarflow_proto::enrich::Rule;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::yaml;

/// Rules of one file at most; more are refused.
pub const MAX_RULES: usize = 10_000;

/// What is wrong with a file, or with a rule of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{reason}", .rule_id.as_ref().map(|id| format!("rule {id}: ")).unwrap_or_default())]
pub struct BadRule {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The rule, where it says which.
    pub rule_id: Option<String>,
    /// What is wrong.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Spanned<Value>>,
}

/// Reads a file: its rules, and what is wrong with the others.
pub fn read(name: &str, yaml: &str) -> (Vec<Rule>, Vec<BadRule>) {
    let bad = |line, rule_id, reason| BadRule { file: name.to_owned(), line, rule_id, reason };
    let file: File = match yaml::read(yaml) {
        Ok(file) => file,
        Err((line, reason)) => return (vec![], vec![bad(line, None, reason)]),
    };
    let (mut rules, mut wrong) = (BTreeMap::<String, Rule>::new(), Vec::new());
    for said in file.rules {
        let line = said.referenced.line();
        let id = said.value.get("rule_id").and_then(Value::as_str).map(str::to_owned);
        if rules.len() >= MAX_RULES {
            wrong.push(bad(line, id, format!("a file has {MAX_RULES} rules at most")));
            break;
        }
        let rule = serde_json::from_value::<Rule>(said.value).map_err(|e| e.to_string());
        match rule.and_then(|rule| super::check(&rule).map(|()| rule)) {
            Ok(rule) if rules.contains_key(&rule.rule_id) => {
                wrong.push(bad(line, id, "the file has a rule of that name already".to_owned()));
            }
            Ok(rule) => {
                rules.insert(rule.rule_id.clone(), rule);
            }
            Err(reason) => wrong.push(bad(line, id, reason)),
        }
    }
    (rules.into_values().collect(), wrong)
}

/// The rules that come with the program.
pub fn builtin() -> Vec<Rule> {
    let (rules, bad) = read("builtin.yaml", include_str!("builtin.yaml"));
    debug_assert!(bad.is_empty(), "{bad:?}");
    rules
}

/// Built-in rules and those of files: of one `rule_id` the later one.
pub fn override_rules(rules: Vec<Rule>, with: Vec<Rule>) -> Vec<Rule> {
    let all = rules.into_iter().chain(with).map(|rule| (rule.rule_id.clone(), rule));
    all.collect::<BTreeMap<_, _>>().into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_rule_is_told_by_line_and_name_and_the_others_stay() {
        let yaml = "rules:\n  - rule_id: good\n    when: {sys_descr: x}\n    set: {type: router}\n  - rule_id: oops\n    \
                    when: {sys_descr: '/(/'}\n    set: {type: router}\n  - rule_id: typo\n    when: {sys_desc: x}\n    \
                    set: {type: router}\n  - rule_id: extra\n    wen: 1\n";
        let (rules, bad) = read("r.yaml", yaml);
        assert_eq!(rules.iter().map(|r| r.rule_id.as_str()).collect::<Vec<_>>(), ["good"]);
        let said: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert!(said[0].starts_with("r.yaml:5: rule oops: `/(/` is no regular expression"), "{said:?}");
        assert!(said[1].starts_with("r.yaml:8: rule typo: `when` knows no `sys_desc`"), "{said:?}");
        assert!(said[2].starts_with("r.yaml:11: rule extra: unknown field `wen`"), "{said:?}");
    }

    #[test]
    fn what_is_no_yaml_is_told_by_line() {
        let (rules, bad) = read("r.yaml", "rules:\n  - rule_id: [\n");
        assert!(rules.is_empty());
        assert_eq!((bad.len(), bad[0].rule_id.as_ref()), (1, None));
        assert!(bad[0].line >= 2, "{bad:?}");
        let (_, bad) = read("r.yaml", "rulez: []\n");
        assert_eq!(bad[0].line, 1, "{bad:?}");
    }

    #[test]
    fn files_override_by_name() {
        let rule = |id: &str, priority| Rule { priority, ..Rule::named(id) };
        let all = override_rules(vec![rule("a", 1), rule("b", 1)], vec![rule("b", 2), rule("c", 1)]);
        assert_eq!(
            all.iter().map(|r| (r.rule_id.as_str(), r.priority)).collect::<Vec<_>>(),
            [("a", 1), ("b", 2), ("c", 1)]
        );
    }
}
