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
        core.settle(&Change::Map(SLICE, piece.index, *chunk));
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
    let (extents, chunks) = core.plan_read(SLICE, 4096, 2 * CHUNK).unwrap();
    assert_eq!(
        extents,
        [Extent {
            offset: 4096,
            buffer: 0..2 * CHUNK as usize
        }]
    );
    assert_eq!(chunks.len(), 3);
}

#[test]
fn a_freed_chunk_is_not_given_while_a_request_uses_it() {
    let mut core = core(1);
    map(&mut core, 0, CHUNK);
    let (_, pinned) = core.plan_read(SLICE, 0, CHUNK).unwrap();
    let whole: Vec<_> = pieces(0, CHUNK).collect();
    let round = core.plan_zero(SLICE, &whole).unwrap();
    assert_eq!(
        core.plan_write(SLICE, &whole).unwrap().blocked.len(),
        1,
        "not before it is durable"
    );
    core.settle(&round.changes[0]);
    assert_eq!(
        core.plan_write(SLICE, &whole).unwrap().blocked.len(),
        1,
        "not while it is read"
    );
    assert!(core.unpin(&pinned));
    assert_eq!(core.plan_write(SLICE, &whole).unwrap().fresh.len(), 1);
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
    let round = core.plan_write(SLICE, &next).unwrap();
    assert!(!round.full && round.blocked == next);
}

#[test]
fn a_leaf_with_changes_under_way_stays_in_memory() {
    let mut core = core(10);
    let todo: Vec<_> = pieces(0, CHUNK).collect();
    let round = core.plan_write(SLICE, &todo).unwrap();
    for leaf in 1..2 * MAX_LEAVES as u32 {
        core.begin_load((SLICE, leaf));
        core.end_load((SLICE, leaf), Some(&[]));
    }
    assert!(core.leaves.len() <= MAX_LEAVES);
    core.settle(&Change::Map(SLICE, ChunkIndex(0), round.fresh[0].1));
    assert!(core.plan_overwrite(SLICE, 0, CHUNK).unwrap().is_some());
}
