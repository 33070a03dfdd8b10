use super::*;

const SLICE: SliceNumber = SliceNumber(1);

fn core(chunks: u32) -> Core {
    let mut core = Core::new(FreeMap::new(chunks), HashMap::new());
    assert!(core.begin_load((SLICE, 0)));
    core.end_load((SLICE, 0), Some(&[]));
    core
}

fn map(core: &mut Core, offset: u64, length: u64) -> Vec<ChunkNumber> {
    let todo: Vec<_> = pieces(offset, length).collect();
    let round = core.plan_write(SLICE, &todo).unwrap();
    for (piece, chunk) in &round.fresh {
        core.allocated(SLICE, piece.index, *chunk);
    }
    round.fresh.into_iter().map(|(_, chunk)| chunk).collect()
}

#[test]
fn a_request_is_cut_at_chunk_borders() {
    let cut: Vec<_> = pieces(CHUNK - 4096, CHUNK + 8192)
        .map(|p| (p.index.0, p.within, p.length, p.at))
        .collect();
    assert_eq!(
        cut,
        [
            (0, CHUNK - 4096, 4096, 0),
            (1, 0, CHUNK, 4096),
            (2, 0, 4096, 4096 + CHUNK as usize)
        ]
    );
    assert_eq!(pieces(0, 0).count(), 0);
}

#[test]
fn chunks_in_sequence_are_one_extent() {
    let mut core = core(10);
    map(&mut core, 0, 3 * CHUNK);
    let placed = core.plan_read(SLICE, 4096, 2 * CHUNK, false).unwrap();
    let mut extents = vec![];
    for (piece, chunk) in &placed {
        extend(&mut extents, *chunk, piece);
    }
    assert_eq!(
        extents,
        [Extent {
            offset: 4096,
            buffer: 0..2 * CHUNK as usize
        }]
    );
    assert_eq!(placed.len(), 3);
}

#[test]
fn a_freed_chunk_is_not_given_while_a_request_uses_it() {
    let mut core = core(1);
    map(&mut core, 0, CHUNK);
    let pinned = core.plan_read(SLICE, 0, CHUNK, false).unwrap();
    let whole: Vec<_> = pieces(0, CHUNK).collect();
    let round = core.plan_zero(SLICE, &whole).unwrap();
    assert_eq!(
        core.plan_write(SLICE, &whole).unwrap().blocked.len(),
        1,
        "not before it is logged"
    );
    core.unmapped(SLICE, ChunkIndex(0));
    core.unlock(SLICE, &round.whole);
    core.unpin(&round.whole);
    assert_eq!(
        core.plan_write(SLICE, &whole).unwrap().blocked.len(),
        1,
        "not before it is durable"
    );
    core.freed(&[round.whole[0].1]);
    assert_eq!(
        core.plan_write(SLICE, &whole).unwrap().blocked.len(),
        1,
        "not while it is read"
    );
    core.unpin(&pinned);
    assert_eq!(core.plan_write(SLICE, &whole).unwrap().fresh.len(), 1);
}

#[test]
fn blocks_that_are_written_are_waited_for_and_the_others_of_the_chunk_are_not() {
    let mut core = core(1);
    map(&mut core, 0, CHUNK);
    let written = core.plan_overwrite(SLICE, 4096, 8192).unwrap().unwrap();
    assert_eq!(core.plan_overwrite(SLICE, 8192, 4096), Err(NotYet::Locked));
    assert_eq!(core.plan_read(SLICE, 0, CHUNK, true), Err(NotYet::Locked));
    assert!(core.plan_read(SLICE, 0, CHUNK, false).is_ok());
    assert!(core.plan_overwrite(SLICE, 12288, 4096).unwrap().is_some());
    core.unlock(SLICE, &written);
    assert!(core.plan_overwrite(SLICE, 8192, 4096).unwrap().is_some());
}

#[test]
fn a_second_write_waits_for_the_one_that_is_given_the_chunk() {
    let mut core = core(4);
    let todo: Vec<_> = pieces(0, 4096).collect();
    let first = core.plan_write(SLICE, &todo).unwrap();
    assert_eq!(core.plan_write(SLICE, &todo).unwrap().blocked, todo);
    assert_eq!(core.plan_zero(SLICE, &todo).unwrap().blocked, todo);
    core.forget(SLICE, &first.fresh);
    assert_eq!(core.free(), 4);
    assert!(core.is_blank(SLICE));
}

#[test]
fn a_full_drive_says_so_only_when_nothing_is_being_freed() {
    let mut core = core(1);
    map(&mut core, 0, CHUNK);
    let next: Vec<_> = pieces(CHUNK, CHUNK).collect();
    assert!(core.plan_write(SLICE, &next).unwrap().full);
    let whole: Vec<_> = pieces(0, CHUNK).collect();
    core.plan_zero(SLICE, &whole).unwrap();
    core.unmapped(SLICE, ChunkIndex(0));
    let round = core.plan_write(SLICE, &next).unwrap();
    assert!(!round.full && round.blocked == next);
}

#[test]
fn a_leaf_that_comes_back_knows_what_is_not_folded() {
    let mut core = core(10);
    let whole: Vec<_> = pieces(0, CHUNK).collect();
    let (piece, chunk) = core.plan_write(SLICE, &whole).unwrap().fresh[0];
    core.pending
        .allocated((SLICE, piece.index), chunk, Default::default());
    core.allocated(SLICE, piece.index, chunk);
    for leaf in 1..2 * MAX_LEAVES as u32 {
        core.begin_load((SLICE, leaf));
        core.end_load((SLICE, leaf), Some(&[]));
    }
    assert!(core.leaves.len() <= MAX_LEAVES);
    assert!(matches!(
        core.plan_overwrite(SLICE, 0, CHUNK),
        Err(NotYet::Missing(_))
    ));
    core.begin_load((SLICE, 0));
    core.pending.end_fold();
    core.end_load((SLICE, 0), Some(&[]));
    assert!(
        !core.leaves.contains_key(&(SLICE, 0)),
        "read before the fold"
    );
    core.pending
        .allocated((SLICE, piece.index), chunk, Default::default());
    core.begin_load((SLICE, 0));
    core.end_load((SLICE, 0), Some(&[]));
    assert!(core.plan_overwrite(SLICE, 0, CHUNK).unwrap().is_some());
}
