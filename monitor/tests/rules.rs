//! deploy/prometheus: rules that name what there is, each tested both ways with `promtool`, each with a runbook.

#[path = "support/document.rs"]
mod document;
#[path = "support/promql.rs"]
mod promql;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use promql::Metrics;

const PROMETHEUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");
const RUNBOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks.md");
const RUNBOOK_URL: &str = "https://github.com/finwatch/finwatch/blob/main/docs/runbooks.md#";

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

/// A configuration of Prometheus.
#[derive(Deserialize)]
struct Configuration {
    rule_files: Vec<String>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

/// A rule, recording or alerting.
#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A file of tests for `promtool`.
#[derive(Deserialize)]
struct Tests {
    group_eval_order: Option<Vec<String>>,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input_series: Vec<Series>,
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Deserialize)]
struct Series {
    series: String,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    exp_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ExprTest {
    expr: String,
    exp_samples: Vec<serde::de::IgnoredAny>,
}

/// The files of a folder that end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = fs::read_to_string(path).expect("UTF-8");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn groups() -> Vec<Group> {
    let mut files = files(Path::new(PROMETHEUS), "rules.yml");
    files.extend(self::files(Path::new(PROMETHEUS), "alerts.yml"));
    files.iter().flat_map(|file| read::<Groups>(file).groups).collect()
}

fn rules() -> Vec<Rule> {
    groups().into_iter().flat_map(|group| group.rules).collect()
}

fn tests() -> Vec<(PathBuf, Tests)> {
    let files = files(&Path::new(PROMETHEUS).join("tests"), ".yml").into_iter();
    files.map(|file| (file.clone(), read(&file))).collect()
}

/// The names of all alerts, or of all recording rules.
fn names(of: fn(&Rule) -> Option<&String>) -> BTreeSet<String> {
    let rules = rules();
    let names: Vec<&String> = rules.iter().filter_map(of).collect();
    let all: BTreeSet<String> = names.iter().map(|name| (*name).clone()).collect();
    assert_eq!(all.len(), names.len(), "a name twice");
    all
}

/// Prometheus's own tool, unless it is not here, which CI does not excuse.
fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let mut promtool = Command::new("promtool");
    let output = promtool.args(arguments).args(files).current_dir(PROMETHEUS).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "CI may not skip what needs promtool");
        eprintln!(
            "SKIPPED promtool {arguments:?}: no promtool here (`cargo xtask setup --for test` installs it)"
        );
        return;
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_rules_are_well_formed() {
    let folder = Path::new(PROMETHEUS);
    promtool(
        &["check", "rules", "--lint-fatal"],
        &[files(folder, "rules.yml"), files(folder, "alerts.yml")].concat(),
    );
}

#[test]
fn the_configuration_names_every_file_of_rules() {
    promtool(&["check", "config"], &[Path::new(PROMETHEUS).join("prometheus.yml")]);
    let config: Configuration = read(&Path::new(PROMETHEUS).join("prometheus.yml"));
    let told: BTreeSet<PathBuf> =
        config.rule_files.iter().map(|file| Path::new(PROMETHEUS).join(file)).collect();
    let folder = Path::new(PROMETHEUS);
    let there: BTreeSet<PathBuf> =
        files(folder, "rules.yml").into_iter().chain(files(folder, "alerts.yml")).collect();
    assert_eq!(told, there);
}

#[test]
fn the_rules_do_what_their_tests_say() {
    promtool(&["test", "rules"], &files(&Path::new(PROMETHEUS).join("tests"), ".yml"));
}

#[test]
fn the_rules_ask_for_documented_metrics_only() {
    let rules = rules();
    let records = rules.iter().filter_map(|rule| Some((rule.record.clone()?, rule.expr.clone())));
    let metrics =
        Metrics::documented(&records.collect::<Vec<_>>()).expect("recording rules of documented metrics");
    for rule in rules.iter().filter(|rule| rule.alert.is_some()) {
        if let Err(fault) = metrics.check(&rule.expr) {
            panic!("{fault}\nin {}", rule.expr);
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_what_to_do() {
    let runbooks = fs::read_to_string(RUNBOOKS).expect("docs/runbooks.md");
    let sections: BTreeSet<String> =
        runbooks.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let alerts = names(|rule| rule.alert.as_ref());
    assert_eq!(alerts, sections, "the alerts left, the sections of docs/runbooks.md right");
    for rule in rules() {
        let Some(alert) = &rule.alert else { continue };
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{alert}: {severity:?}");
        let annotations: Vec<&str> = rule.annotations.keys().map(String::as_str).collect();
        assert_eq!(annotations, ["description", "runbook_url", "summary"], "{alert}");
        assert!(rule.annotations.values().all(|text| !text.trim().is_empty()), "{alert}");
        assert_eq!(
            rule.annotations["runbook_url"],
            format!("{RUNBOOK_URL}{}", alert.to_lowercase()),
            "{alert}"
        );
    }
}

/// The runbooks lead to findings that there are.
#[test]
fn links_of_the_runbooks_lead_somewhere() {
    let docs = Path::new(RUNBOOKS).parent().expect("docs/");
    let runbooks = fs::read_to_string(RUNBOOKS).expect("docs/runbooks.md");
    let findings = fs::read_to_string(docs.join("findings.md")).expect("docs/findings.md");
    let anchors: BTreeSet<String> =
        findings.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let links = runbooks.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for link in links {
        let (file, part) = link.split_once('#').unwrap_or((link, ""));
        assert!(docs.join(file).exists(), "{link}");
        assert!(part.is_empty() || (file == "findings.md" && anchors.contains(part)), "{link}");
    }
}

/// What a title is linked by.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Each alert fires on what it is for, while series beside it, called innocent, set off nothing.
#[test]
fn every_alert_is_tested_to_fire_and_to_spare_the_innocent() {
    let innocent = |text: &String| text.contains("=\"innocent");
    let mut tested = BTreeSet::new();
    for (file, tests) in tests() {
        for test in tests.tests {
            for alert in &test.alert_rule_test {
                let fires = alert.exp_alerts.iter().flat_map(|expected| expected.exp_labels.values());
                assert!(!fires.into_iter().any(|value| value.starts_with("innocent")), "{}", file.display());
                let beside = test.input_series.iter().any(|series| innocent(&series.series));
                if beside && !alert.exp_alerts.is_empty() {
                    tested.insert(alert.alertname.clone());
                }
            }
        }
    }
    assert_eq!(names(|rule| rule.alert.as_ref()), tested, "the alerts left, the tested right");
}

#[test]
fn every_recording_rule_is_tested() {
    let tests = tests();
    let asked = tests.iter().flat_map(|(_, tests)| &tests.tests).flat_map(|test| &test.promql_expr_test);
    let tested: BTreeSet<String> =
        asked.filter(|test| !test.exp_samples.is_empty()).map(|test| test.expr.clone()).collect();
    assert_eq!(names(|rule| rule.record.as_ref()), tested, "the rules left, the tested right");
}

/// An alert that is evaluated before what it is told from sees the minute before: tests that pass or fail by chance.
#[test]
fn tests_of_alerts_evaluate_groups_in_order() {
    let order: Vec<String> = groups().into_iter().map(|group| group.name).collect();
    for (file, tests) in tests() {
        let of_alerts = tests.tests.iter().any(|test| !test.alert_rule_test.is_empty());
        let told = tests.group_eval_order.unwrap_or_default();
        let all = order.iter().all(|group| told.contains(group));
        let alerts = told.iter().position(|group| group.ends_with("-alerts"));
        let sorted = alerts.is_some_and(|first| told[first..].iter().all(|group| group.ends_with("-alerts")));
        assert!(!of_alerts || (all && sorted), "{}: {told:?}", file.display());
    }
}
