//! A volume on two drives and a witness: whatever one of them does, hosts see no error, and what was
//! acknowledged is there. More of it is rows of the fault matrix (`faults`).

use anyhow::Result;
use weft_e2e_local::faults::Load;
use weft_e2e_local::faults::mirrored::{said, says_again};
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_spec::ids::DocumentGeneration;

/// Answers that show that the volume goes on.
const ON: u64 = 500;
/// Of an engine, of a host.
const ADMITTED: &str = "host admitted";

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

/// A mounted Secret may be a minute old.
#[test]
fn an_engine_of_a_mirror_that_starts_with_an_older_document_says_so_and_admits_nobody() -> Result<()>
{
    namespace::enter();
    let setup = Setup::mirrored();
    let _drives = setup.start_drives(Role::Supervised);
    let mut newer = setup.engine_document(1);
    newer.generation = DocumentGeneration(3);
    let path = setup.write("engine.json", &newer);
    let engine = Process::start("weft-engine", Role::Supervised, &path);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(ON).await;
        setup.write("engine.json", &setup.engine_document(1));
        let before = said(&engine, ADMITTED);
        engine.kill_worker();
        says_again(&engine, "DocumentOutdated", 0).await;
        assert_eq!(said(&engine, ADMITTED), before);
        setup.write("engine.json", &newer);
        engine.kill_worker();
        load.progress(ON).await;
        println!("{}", load.finish("admitted again").await?.what);
        Ok(())
    })
}
