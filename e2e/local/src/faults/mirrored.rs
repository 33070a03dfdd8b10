//! What the engine of a mirror says of its members.

use crate::process::Process;
use crate::wait::until_async;

/// Of a record in force with members out.
pub const FEWER: &str = "goes on without";
/// Of one with all of them.
pub const ALL: &str = "all members are in-sync";
/// Of a volume without a member that has the data.
pub const PAUSED: &str = "state=Paused";

/// How often the engine has said this.
pub fn said(engine: &Process, words: &str) -> usize {
    engine.log().matches(words).count()
}

/// Waits until the engine has said it once more than so often.
pub async fn says_again(engine: &Process, words: &str, before: usize) {
    let again = || (said(engine, words) > before).then_some(());
    until_async(&format!("the engine says: {words}"), again).await;
}
