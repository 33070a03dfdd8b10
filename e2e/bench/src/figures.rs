//! What was measured, as medians, ratios and a table.

use serde::Serialize;
use std::time::Duration;

/// One measurement of one case.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// Requests a second.
    pub iops: f64,
    /// Run time of the target's process per request, microseconds.
    pub cpu_us: f64,
}

impl Sample {
    /// Of the latencies of requests that were answered within a time.
    pub fn of(mut latencies: Vec<Duration>, lasted: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            let found = latencies.get(index.min(latencies.len().saturating_sub(1)));
            found.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
        };
        let count = latencies.len() as f64;
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            iops: count / lasted.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
        }
    }
}

/// Which number of a case is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median latency: less is better.
    P50,
    /// Requests a second: more is better.
    Iops,
}

impl Metric {
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::P50 => sample.p50_us,
            Self::Iops => sample.iops,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::Iops => "iops",
        }
    }
}

/// A case against others of the same run.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The case.
    pub case: String,
    /// By this number.
    pub of: Metric,
    /// Against the best of these.
    pub against: Vec<String>,
    /// What it should be: at most for a latency, at least for a rate.
    pub goal: Option<f64>,
}

/// All samples of one case, one a round.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Requests at a time.
    pub depth: usize,
    /// In the order of the rounds.
    pub samples: Vec<Sample>,
}

/// A line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    name: String,
    depth: usize,
    ratio: Option<f64>,
    of: Option<&'static str>,
    against: Option<String>,
    p50_us: f64,
    p99_us: f64,
    iops: f64,
    cpu_us_per_io: f64,
    /// Of the ratio, or of the requests a second where there is none: greatest less least of the
    /// rounds, divided by the median.
    spread: f64,
    goal: Option<f64>,
    met: Option<bool>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    (most - least) / median(values.to_vec())
}

impl Series {
    fn line(&self) -> Line {
        let all = |number: fn(&Sample) -> f64| self.samples.iter().map(number).collect::<Vec<_>>();
        let iops = all(|sample| sample.iops);
        Line {
            name: self.name.clone(),
            depth: self.depth,
            ratio: None,
            of: None,
            against: None,
            p50_us: median(all(|sample| sample.p50_us)),
            p99_us: median(all(|sample| sample.p99_us)),
            spread: spread(&iops),
            iops: median(iops),
            cpu_us_per_io: median(all(|sample| sample.cpu_us)),
            goal: None,
            met: None,
        }
    }
}

/// A line a case, then a line a comparison.
pub fn report(series: &[Series], comparisons: &[Comparison]) -> Vec<Line> {
    let mut lines: Vec<Line> = series.iter().map(Series::line).collect();
    lines.extend(
        comparisons
            .iter()
            .filter_map(|comparison| compare(series, comparison)),
    );
    lines
}

fn compare(series: &[Series], comparison: &Comparison) -> Option<Line> {
    let find = |name: &String| series.iter().find(|series| series.name == *name);
    let case = find(&comparison.case)?;
    let of = comparison.of;
    let middle = |series: &Series| median(series.samples.iter().map(|s| of.of(s)).collect());
    let others = comparison.against.iter().filter_map(find);
    let best = match of {
        Metric::P50 => others.min_by(|a, b| middle(a).total_cmp(&middle(b))),
        Metric::Iops => others.max_by(|a, b| middle(a).total_cmp(&middle(b))),
    }?;
    // Round by round: what disturbed the machine then disturbed both.
    let rounds = case.samples.iter().zip(&best.samples);
    let ratios: Vec<f64> = rounds.map(|(a, b)| of.of(a) / of.of(b)).collect();
    let ratio = median(ratios.clone());
    let met = comparison.goal.map(|goal| match of {
        Metric::P50 => ratio <= goal,
        Metric::Iops => ratio >= goal,
    });
    Some(Line {
        ratio: Some(ratio),
        of: Some(of.name()),
        against: Some(best.name.clone()),
        spread: spread(&ratios),
        goal: comparison.goal,
        met,
        ..case.line()
    })
}

/// Prints it to be read.
pub fn print(lines: &[Line]) {
    let (cases, ratios): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.ratio.is_none());
    println!(
        "\n{:<44} {:>5} {:>10} {:>10} {:>10} {:>11} {:>7}",
        "case", "depth", "p50 us", "p99 us", "IOPS", "CPU us/IO", "spread"
    );
    for line in cases {
        println!(
            "{:<44} {:>5} {:>10.1} {:>10.1} {:>10.0} {:>11.2} {:>6.0}%",
            line.name,
            line.depth,
            line.p50_us,
            line.p99_us,
            line.iops,
            line.cpu_us_per_io,
            line.spread * 100.0
        );
    }
    println!(
        "\n{:<44} {:>6} {:>8} {:>7}  {:<12} against",
        "ratio", "of", "", "spread", "goal"
    );
    for line in ratios {
        let goal = match (line.goal, line.met, line.of) {
            (Some(goal), Some(met), Some(of)) => {
                let sign = if of == "p50" { "<=" } else { ">=" };
                format!("{sign} {goal} {}", if met { "met" } else { "MISSED" })
            }
            _ => String::new(),
        };
        println!(
            "{:<44} {:>6} {:>8.2} {:>6.0}%  {:<12} {}",
            line.name,
            line.of.unwrap_or_default(),
            line.ratio.unwrap_or(f64::NAN),
            line.spread * 100.0,
            goal,
            line.against.as_deref().unwrap_or_default()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, p50: [f64; 3]) -> Series {
        let samples = p50.map(|p50_us| Sample {
            p50_us,
            p99_us: p50_us * 2.0,
            iops: 1e6 / p50_us,
            cpu_us: 1.0,
        });
        Series {
            name: name.to_owned(),
            depth: 1,
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_against_the_best() {
        let all = [
            series("ours", [30.0, 60.0, 33.0]),
            series("slow", [90.0, 90.0, 90.0]),
            series("fast", [20.0, 40.0, 30.0]),
        ];
        let comparison = Comparison {
            case: "ours".to_owned(),
            of: Metric::P50,
            against: vec!["slow".to_owned(), "fast".to_owned()],
            goal: Some(1.4),
        };
        let lines = report(&all, &[comparison]);
        let line = lines.last().unwrap();
        assert_eq!(line.against.as_deref(), Some("fast"));
        assert_eq!((line.ratio, line.met), (Some(1.5), Some(false)));
        assert!((line.spread - 0.4 / 1.5).abs() < 1e-9, "{}", line.spread);
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = (1..=100).rev().map(Duration::from_micros).collect();
        let sample = Sample::of(
            latencies,
            Duration::from_secs(1),
            Duration::from_micros(300),
        );
        assert_eq!(
            (sample.p50_us.round(), sample.p99_us.round()),
            (51.0, 100.0)
        );
        assert_eq!((sample.iops, sample.cpu_us.round()), (100.0, 3.0));
    }
}
