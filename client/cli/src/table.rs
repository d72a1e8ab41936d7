//! Tables of text: a title line, columns as wide as their widest cell, two spaces between them.

/// On which side a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Columns with their titles, and rows.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    columns: [(&'static str, Side); COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table without rows.
    pub(crate) fn new(columns: [(&'static str, Side); COLUMNS]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    /// The table as text, each line with its end.
    pub(crate) fn render(&self) -> String {
        let titles = self.columns.map(|(title, _)| title.to_owned());
        let mut widths = [0; COLUMNS];
        let lines = || std::iter::once(&titles).chain(&self.rows);
        for cells in lines() {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for cells in lines() {
            let start = out.len();
            for ((cell, &width), (_, side)) in cells.iter().zip(&widths).zip(self.columns) {
                if out.len() > start {
                    out.push_str("  ");
                }
                match side {
                    Side::Left => out.push_str(&format!("{cell:<width$}")),
                    Side::Right => out.push_str(&format!("{cell:>width$}")),
                }
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("NAME", Side::Left), ("N", Side::Right), ("X", Side::Left)]);
        table.row(["é".to_owned(), "100".to_owned(), "y".to_owned()]);
        table.row(["longer".to_owned(), "7".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "NAME      N  X\né       100  y\nlonger    7\n"
        );
    }

    #[test]
    fn a_table_without_rows_has_its_titles() {
        assert_eq!(
            Table::new([("A", Side::Left), ("B", Side::Right)]).render(),
            "A  B\n"
        );
    }
}
