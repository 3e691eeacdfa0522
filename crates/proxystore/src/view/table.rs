//! Columns of a stored table, each read by itself.

use super::View;
use crate::buffer::Buffer;
use crate::codec::{Column, TABLE, TableMeta};
use crate::error::{Error, ErrorKind, Result};

impl View {
    /// Reads one column of a table, and nothing of the others.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another object than a table, [`ErrorKind::Config`] when it
    /// has no such column, else what the channel fails with.
    pub fn column(&self, name: &str) -> Result<Column> {
        if self.codec() != TABLE {
            return Err(self.unlike("read a column", "no table"));
        }
        let meta = TableMeta::read(self.head().meta()).map_err(|error| self.about(error))?;
        let place = |part: usize| Some((part, self.head().parts().get(part)?));
        let Some((part, place)) = meta.part_of(name).and_then(place) else {
            let error =
                Error::new(ErrorKind::Config, "read a column", "the table has none of that name")
                    .with("column", name)
                    .with_hint(format!("its columns are: {}", meta.columns.join(", ")));
            return Err(self.about(error));
        };
        let bytes: Buffer = self.source.read(part, 0..place.end - place.start)?;
        Column::read(bytes).map_err(|error| self.about(error))
    }
}
