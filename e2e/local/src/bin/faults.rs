//! Runs the fault matrix, or the rows that are named, and prints and stores what came of it:
//! `target/report/faults.json`, an array of {row, injected, expected, seen, longest_gap_ms, passed}.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use weft_e2e_local::faults::{Finding, ROWS};

fn main() -> Result<()> {
    let wanted: Result<BTreeSet<u8>, _> = std::env::args().skip(1).map(|row| row.parse()).collect();
    let wanted = wanted.context("rows are numbers: faults 1 3")?;
    let is_there = |row: &u8| ROWS.iter().any(|known| known.number == *row);
    let unknown: Vec<_> = wanted.iter().filter(|row| !is_there(row)).collect();
    ensure!(unknown.is_empty(), "there are no rows {unknown:?}");
    let is_wanted = |row: u8| wanted.is_empty() || wanted.contains(&row);
    let mut findings = vec![];
    for row in ROWS.iter().filter(|row| is_wanted(row.number)) {
        println!("row {:>2}  {}", row.number, row.injected);
        let finding = row.find();
        print(&finding);
        findings.push(finding);
    }
    let report = Path::new("target/report/faults.json");
    std::fs::create_dir_all("target/report")?;
    std::fs::write(report, serde_json::to_vec_pretty(&findings)?)?;
    let failed: Vec<_> = findings.iter().filter(|one| !one.passed).collect();
    println!(
        "{} of {} rows passed: {}",
        findings.len() - failed.len(),
        findings.len(),
        report.display()
    );
    ensure!(
        failed.is_empty(),
        "rows failed: {:?}",
        failed.iter().map(|one| one.row).collect::<Vec<_>>()
    );
    Ok(())
}

fn print(finding: &Finding) {
    let verdict = if finding.passed { "ok" } else { "FAILED" };
    let gap = finding
        .longest_gap_ms
        .map_or("-".to_owned(), |gap| format!("{gap} ms"));
    println!("        expected      {}", finding.expected);
    println!("        seen          {}", finding.seen);
    println!("        longest gap   {gap}    {verdict}");
}
