//! Checking a pack that is read back: whether it is what was packed, in every column, and in order.

use super::{Column, Columns, Footer, ObjectsSum, RowsDigest, pieces_of};

/// A pack that is gone through, row group by row group.
#[derive(Default)]
pub struct Check {
    digest: RowsDigest,
    objects: ObjectsSum,
    records: u64,
    last: Option<String>,
}

impl Check {
    /// Goes through the next row group, of which all columns are there. `false`: a row does not give its body back, rows are not
    /// in their order, or the footer says something else of them, by which they are looked for.
    pub fn group(&mut self, footer: &Footer, group: usize, columns: &Columns) -> bool {
        for row in 0..columns.rows {
            let Some(object) = columns.text(Column::Object, row).filter(|_| pieces_of(columns, row).is_some()) else {
                return false;
            };
            if self.last.as_deref().is_some_and(|last| last >= object) {
                return false;
            }
            self.digest.add(columns, row);
            self.objects.add(object, columns.text(Column::Etag, row).unwrap_or_default());
            let last = self.last.get_or_insert_default();
            last.clear();
            last.push_str(object);
            self.records += 1;
        }
        let ends = columns.text(Column::Object, 0).zip(self.last.as_deref());
        columns.rows > 0 && footer.objects(group) == ends
    }

    /// Which objects it has, if all of it was there.
    pub fn end(self, footer: &Footer) -> Option<ObjectsSum> {
        (self.records == footer.records && self.digest.hex() == footer.digest).then_some(self.objects)
    }
}
