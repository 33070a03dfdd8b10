//! A volume on two drives and a witness: whatever one of them does, hosts see no error, and what was
//! acknowledged is there.

use anyhow::Result;
use weft_e2e_local::faults::Load;
use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;

#[test]
fn a_mirror_is_formed_and_serves() -> Result<()> {
    namespace::enter();
    let setup = Setup::mirrored();
    let _drives = setup.start_drives(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(2000).await;
        println!("{}", load.finish("formed").await?.what);
        Ok(())
    })
}
