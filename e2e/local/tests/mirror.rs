//! A volume on two drives and a witness: whatever one of them does, hosts see no error, and what was
//! acknowledged is there.

use anyhow::Result;
use weft_e2e_local::faults::Load;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::{Nth, Setup};
use weft_e2e_local::wait::until_async;

/// Answers that show that the volume goes on.
const ON: u64 = 500;

/// What the engine says of a record with members out.
const FEWER: &str = "goes on without";
/// What it says of one with all of them.
const ALL: &str = "all members are in-sync";

/// How often the engine has said this.
fn said(engine: &Process, words: &str) -> usize {
    engine.log().matches(words).count()
}

/// Waits until the engine has said it once more than so often.
async fn says_again(engine: &Process, words: &str, before: usize) {
    let again = || (said(engine, words) > before).then_some(());
    until_async(&format!("the engine says: {words}"), again).await;
}

#[test]
fn a_mirror_is_formed_and_serves() -> Result<()> {
    namespace::enter();
    let setup = Setup::mirrored();
    let _drives = setup.start_drives(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(ON).await;
        println!("{}", load.finish("formed").await?.what);
        Ok(())
    })
}

#[test]
fn either_member_may_be_lost_when_the_other_has_been_brought_up_to_date() -> Result<()> {
    namespace::enter();
    let setup = Setup::mirrored();
    let mut drives = setup.start_drives(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        for nth in [1, 0, 1] {
            load.progress(ON).await;
            let before = said(&engine, FEWER);
            drives[nth].kill();
            says_again(&engine, FEWER, before).await;
            load.progress(ON).await;
            let before = said(&engine, ALL);
            drives[nth] = setup.start_nth(Nth(nth as u16), Role::Supervised);
            says_again(&engine, ALL, before).await;
        }
        load.progress(ON).await;
        println!(
            "{:?}",
            load.finish("three members lost and brought up to date")
                .await?
                .what
        );
        Ok(())
    })
}

#[test]
fn the_witness_may_be_lost() -> Result<()> {
    namespace::enter();
    let setup = Setup::mirrored();
    let mut drives = setup.start_drives(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(ON).await;
        drives[2].kill();
        load.progress(10 * ON).await;
        println!("{}", load.finish("without a witness").await?.what);
        Ok(())
    })
}

#[test]
fn an_engine_of_a_mirror_that_is_killed_loses_no_write() -> Result<()> {
    namespace::enter();
    let setup = Setup::mirrored();
    let _drives = setup.start_drives(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        for _ in 0..5 {
            load.progress(ON).await;
            engine.kill_worker();
        }
        load.progress(ON).await;
        println!("{}", load.finish("five kills").await?.what);
        Ok(())
    })
}
