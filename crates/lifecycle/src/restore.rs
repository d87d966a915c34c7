//! Which copy a restore takes.

use crate::ids::CopyKey;
use crate::row::{self, CopyRow, CopyState, Reason};
use crate::time::UnixMs;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest copy there is, whatever became of the original.
    Newest,
    /// What was current at that moment.
    At(UnixMs),
    /// This copy.
    Copy(CopyKey),
}

/// The answer for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// Take the first; the others, next older first, are what to offer if its bytes are damaged.
    Take(Vec<&'a CopyRow>),
    /// The key had no content at that moment: it had been removed by then.
    NotThere {
        /// When it had been removed.
        removed_at: UnixMs,
    },
    /// No copy is that old (or the named copy is not there).
    NoCopy,
}

/// Selects among all copies of one key that the catalog still has, disowned ones included.
///
/// "As of T" takes the copy with the greatest order among those created by T, unless the key stood removed at T: a version
/// was current from its creation until the next one's, or until its removal. Where retention has thinned out the version
/// that was current at T, that is the next older one: the nearest that is left. Copies that are known to have no bytes are
/// never taken.
pub fn select<'a>(rows: &'a [CopyRow], wanted: &Wanted) -> Selection<'a> {
    let mut found = newest_first(rows);
    match wanted {
        Wanted::Newest => found.retain(|row| has_bytes(row)),
        Wanted::Copy(copy_key) => found.retain(|row| row.copy_key == *copy_key),
        Wanted::At(t) => {
            found.retain(|row| has_bytes(row) && row.created_at <= *t);
            place_later_undeleted(&mut found, *t);
            // A stable sort: witnesses of that time first, the others, newest first, only where nothing better is left.
            found.sort_by_key(|row| is_later_witness(row, *t));
            if let Some(removed_at) = found.first().and_then(|row| absent_at(row, *t)) {
                return Selection::NotThere { removed_at };
            }
        }
    }
    if found.is_empty() { Selection::NoCopy } else { Selection::Take(found) }
}

/// By order; by creation where the rows' orders have no common basis (the source's kind was changed).
fn newest_first(rows: &[CopyRow]) -> Vec<&CopyRow> {
    let mut found: Vec<&CopyRow> = rows.iter().collect();
    if rows.windows(2).all(|pair| pair[0].order.basis() == pair[1].order.basis()) {
        found.sort_by(|a, b| row::newest_first(a, b));
    } else {
        found.sort_by(|a, b| (b.created_at, &b.copy_key).cmp(&(a.created_at, &a.copy_key)));
    }
    found
}

/// The order of a copy that was undeleted after `t` lies above all others, whatever stood where at `t`: it goes right above
/// its original or, where that is gone, where the time of its creation, which it keeps, places it. The others keep their
/// places: orders tell more than times, which may be cut to seconds.
fn place_later_undeleted(found: &mut Vec<&CopyRow>, t: UnixMs) {
    let is_later = |row: &&CopyRow| row.undeleted_at().is_some_and(|undeleted_at| t < undeleted_at);
    let (later, mut placed): (Vec<&CopyRow>, Vec<&CopyRow>) = found.iter().copied().partition(is_later);
    for row in later.into_iter().rev() {
        let original = placed.iter().position(|other| row.is_brought_back_from(other));
        let by_time = || placed.iter().position(|other| other.created_at <= row.created_at);
        placed.insert(original.or_else(by_time).unwrap_or(placed.len()), row);
    }
    *found = placed;
}

fn has_bytes(row: &CopyRow) -> bool {
    !matches!(row.state, CopyState::Disowned { reason: Reason::BytesMissing, .. })
}

/// A copy that `undelete` made after `t` and that was disowned again: the second removal has taken the place of the first,
/// so that it cannot tell any more whether the key stood removed at `t`. The copies from before that can.
fn is_later_witness(row: &CopyRow, t: UnixMs) -> bool {
    !row.is_active() && row.undeleted_at().is_some_and(|undeleted_at| t < undeleted_at)
}

/// When the removal was that still held at `t`, if one did. An active undeleted copy keeps the time of the removal that it
/// undid, so that the gap between the two is known.
fn absent_at(row: &CopyRow, t: UnixMs) -> Option<UnixMs> {
    let removed_at = row.removed_at.filter(|removed_at| *removed_at <= t)?;
    match (row.state, row.undeleted_at()) {
        (CopyState::Disowned { .. }, _) => Some(removed_at),
        (CopyState::Active { .. }, Some(undeleted_at)) if t < undeleted_at => Some(removed_at),
        (CopyState::Active { .. }, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ObjectKey;
    use crate::order::Order;
    use crate::row::Origin;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn named(name: &str) -> CopyKey {
        CopyKey::of(ObjectKey::new(name).expect("short"))
    }

    /// An active copy, created ten times its place after zero.
    fn row(name: &str, place: u8) -> CopyRow {
        CopyRow {
            copy_key: named(name),
            order: Order::from_sequencer(&format!("{place:02x}")).expect("hex"),
            floating: false,
            origin: Origin::Event,
            created_at: UnixMs(i64::from(place) * 10),
            state: CopyState::Active { due_at: None },
            removed_at: None,
            version_id: None,
            etag: "tag".into(),
            size: 1,
            checksum: None,
            storage_class: None,
            rev: "1".into(),
        }
    }

    fn removed(row: CopyRow, at: i64) -> CopyRow {
        let state = CopyState::Disowned { at: UnixMs(at + 1_000), reason: Reason::Removed };
        CopyRow { state, removed_at: Some(UnixMs(at)), ..row }
    }

    /// What `undelete` makes of a removed row: same creation and removal, an order above all.
    fn brought_back(row: &CopyRow, name: &str, order: Order, at: i64) -> CopyRow {
        CopyRow {
            copy_key: named(name),
            order,
            origin: Origin::Undelete { at: UnixMs(at) },
            state: CopyState::Active { due_at: None },
            ..row.clone()
        }
    }

    /// The chosen copy's name, when it had been removed, or `-`.
    fn chosen(rows: &[CopyRow], wanted: &Wanted) -> String {
        match select(rows, wanted) {
            Selection::Take(rows) => rows[0].copy_key.to_string(),
            Selection::NotThere { removed_at } => format!("removed at {}", removed_at.0),
            Selection::NoCopy => "-".to_owned(),
        }
    }

    fn at(rows: &[CopyRow], t: i64) -> String {
        chosen(rows, &Wanted::At(UnixMs(t)))
    }

    #[test]
    fn each_version_was_current_until_the_next() {
        let rows = [row("b", 2), row("c", 3), row("a", 1)];
        let expected = [(9, "-"), (10, "a"), (19, "a"), (20, "b"), (29, "b"), (30, "c"), (999, "c")];
        for (t, copy) in expected {
            assert_eq!(at(&rows, t), copy, "at {t}");
        }
    }

    #[test]
    fn a_removed_key_was_there_until_its_removal_and_is_again_from_the_next_put() {
        let rows = [removed(row("a", 1), 35), removed(row("b", 3), 35), row("c", 5)];
        for (t, copy) in [(34, "b"), (35, "removed at 35"), (49, "removed at 35"), (50, "c")] {
            assert_eq!(at(&rows, t), copy, "at {t}");
        }
        assert_eq!(chosen(&rows[..2], &Wanted::Newest), "b", "the newest there is, whatever became of the original");
    }

    #[test]
    fn where_a_version_was_thinned_out_the_next_older_is_taken() {
        let rows = [row("a", 1), row("c", 3)];
        assert_eq!(at(&rows, 25), "a");
    }

    #[test]
    fn an_undelete_leaves_a_gap() {
        let (a, b) = (removed(row("a", 1), 40), removed(row("b", 2), 40));
        let order = |n: u8| (0..n).fold(Order::from_sequencer("05").expect("hex"), |order, _| order.next_sub());
        let back = [brought_back(&a, "a again", order(1), 60), brought_back(&b, "b again", order(2), 60)];
        let all = [&[a, b][..], &back].concat();
        for rows in [&all[..], &back] {
            for (t, copies) in [
                (15, ["a", "a again"]),
                (39, ["b", "b again"]),
                (40, ["removed at 40"; 2]),
                (59, ["removed at 40"; 2]),
                (60, ["b again"; 2]),
            ] {
                assert!(copies.contains(&at(rows, t).as_str()), "at {t}: {}", at(rows, t));
            }
        }
        // Put back, and removed once more: the second removal's time stands where the first one's stood.
        let again: Vec<CopyRow> = back.iter().map(|row| removed(row.clone(), 80)).collect();
        let rows = [&all[..2], &again].concat();
        for (t, copy) in [(15, "a"), (39, "b"), (50, "removed at 40"), (60, "b again"), (80, "removed at 80")] {
            assert_eq!(at(&rows, t), copy, "at {t}");
        }
        assert_eq!(at(&again, 39), "b again", "with the first copies gone, the second still have the content");
    }

    #[test]
    fn what_was_undeleted_later_does_not_stand_before_what_was_current() {
        let (a, b) = (removed(row("a", 1), 40), removed(row("b", 2), 40));
        let order = |n: u8| (0..n).fold(Order::from_sequencer("05").expect("hex"), |order, _| order.next_sub());
        // The newest one's undeleted copy has gone already, as the twin of what was put back to the source at 61.
        let (a_again, back) =
            (brought_back(&a, "a again", order(1), 60), CopyRow { created_at: UnixMs(61), ..row("b back", 7) });
        let rows = [a, b, a_again, back];
        for (t, copies) in
            [(15, ["a", "a again"]), (20, ["b"; 2]), (39, ["b"; 2]), (50, ["removed at 40"; 2]), (61, ["b back"; 2])]
        {
            assert!(copies.contains(&at(&rows, t).as_str()), "at {t}: {}", at(&rows, t));
        }
    }

    #[test]
    fn a_later_undelete_leaves_the_places_of_the_others_to_their_orders() {
        // Two puts in one second, as a look dates them: the later one is dated before the earlier one.
        let (a, b) = (removed(row("a", 2), 40), removed(CopyRow { created_at: UnixMs(15), ..row("b", 3) }, 40));
        let first = Order::from_sequencer("05").expect("hex");
        let back = [brought_back(&a, "a again", first, 60), brought_back(&b, "b again", first.next_sub(), 60)];
        assert_eq!(at(&[a.clone(), b.clone()], 30), "b");
        assert_eq!(at(&[&[a, b][..], &back].concat(), 30), "b again", "the same content");
    }

    #[test]
    fn the_others_are_offered_next_older_first() {
        let rows = [row("a", 1), row("c", 3), row("b", 2), row("d", 4)];
        let Selection::Take(offered) = select(&rows, &Wanted::At(UnixMs(30))) else { panic!() };
        let names: Vec<&str> = offered.iter().map(|row| row.copy_key.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
    }

    #[test]
    fn a_copy_without_bytes_is_never_taken_but_by_name() {
        let state = CopyState::Disowned { at: UnixMs(1), reason: Reason::BytesMissing };
        let rows = [row("a", 1), CopyRow { state, ..row("b", 2) }];
        assert_eq!(chosen(&rows, &Wanted::Newest), "a");
        assert_eq!(at(&rows, 99), "a");
        assert_eq!(chosen(&rows, &Wanted::Copy(named("b"))), "b", "the reader of its bytes says what is wrong");
        assert_eq!(chosen(&rows, &Wanted::Copy(named("z"))), "-");
        assert_eq!(chosen(&[], &Wanted::Newest), "-");
    }

    proptest! {
        #[test]
        fn the_choice_does_not_depend_on_the_order_of_the_rows_not_even_across_bases(
            places in proptest::collection::vec((0u8..20, any::<bool>()), 1..30), t in 0i64..250, turn: usize,
        ) {
            let rows = places.iter().enumerate().map(|(n, (place, by_time))| {
                let row = row(&format!("copy{n:02}"), *place);
                let order = if *by_time { Order::from_time(row.created_at) } else { row.order };
                CopyRow { order, ..row }
            });
            let mut rows: Vec<CopyRow> = rows.collect();
            let wanted = [Wanted::Newest, Wanted::At(UnixMs(t))];
            let before = wanted.each_ref().map(|wanted| chosen(&rows, wanted));
            let by = turn % rows.len();
            rows.rotate_left(by);
            rows.reverse();
            prop_assert_eq!(wanted.each_ref().map(|wanted| chosen(&rows, wanted)), before);
        }
    }
}
