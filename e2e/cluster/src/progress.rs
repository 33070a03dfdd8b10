//! One line a step: what, and how long it took.

use anyhow::Result;
use std::io::Write;
use std::time::Instant;

/// Runs one step and prints its line.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("  {what:<72}");
    let _ = std::io::stdout().flush();
    let began = Instant::now();
    let result = work();
    let took = began.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!(" ok {took:6.1} s"),
        Err(_) => println!(" FAILED {took:6.1} s"),
    }
    result
}

/// A line that is not a step.
pub fn say(text: &str) {
    println!("{text}");
}

/// A line with the spread of what several runs took. Sorts them.
pub fn spread(what: &str, seconds: &mut [f64]) -> String {
    seconds.sort_by(f64::total_cmp);
    let (low, middle, high) = (
        seconds[0],
        seconds[seconds.len() / 2],
        seconds[seconds.len() - 1],
    );
    format!(
        "{what:<34} min {low:5.2} s   median {middle:5.2} s   max {high:5.2} s   ({} runs)",
        seconds.len()
    )
}
