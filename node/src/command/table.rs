//! Tables as Docker's clients print them: columns of at least ten characters, three blanks between them.

/// Characters of a column, the blanks behind it included.
const COLUMN_MIN: usize = 10;
/// Blanks behind the longest cell of a column.
const GAP: usize = 3;

/// A table with a line of titles.
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table without rows.
    pub fn new(titles: [&str; COLUMNS]) -> Self {
        Self { rows: vec![titles.map(str::to_owned)] }
    }

    /// One more row. Line ends inside a cell become blanks: a row is a line.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| if cell.contains('\n') { cell.replace('\n', " ") } else { cell }));
    }

    /// As text; each row ends with a line end.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let longest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            (longest + GAP).max(COLUMN_MIN)
        };
        let widths: Vec<_> = (0..COLUMNS).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The first `length` characters; the last of them is an ellipsis where something is left out.
pub fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// The first twelve characters of an id, without the name of its hash.
pub fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// `running` as `Running`.
pub fn title_case(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NOD-01
    #[test]
    fn columns_are_as_wide_as_docker_makes_them() {
        let mut table = Table::new(["ID", "STATUS", "MANAGER STATUS"]);
        table.row(["qw6a1k *".into(), "Ready".into(), "Leader".into()]);
        table.row(["a-longer-cell".into(), "Down".into(), String::new()]);
        let expected = "\
ID              STATUS    MANAGER STATUS
qw6a1k *        Ready     Leader
a-longer-cell   Down
";
        assert_eq!(table.text(), expected);
    }

    #[test]
    fn a_row_is_one_line_and_letters_count_as_one() {
        let mut table = Table::new(["NAME", "ERROR"]);
        table.row(["größer-als".into(), "a\nb".into()]);
        assert_eq!(table.text(), "NAME         ERROR\ngrößer-als   a b\n");
    }

    /// SVC-23
    #[test]
    fn long_texts_end_with_an_ellipsis() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "long…");
        assert_eq!(shorten("ääää", 4), "ääää");
    }

    /// SVC-18
    #[test]
    fn ids_are_cut_and_states_are_capitalised() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("9uk4639qpg7npwf3fn2aasksr"), "9uk4639qpg7n");
        assert_eq!((title_case("running"), title_case("")), ("Running".into(), String::new()));
    }
}
