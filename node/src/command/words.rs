//! Splits a line into words as a shell does, without expanding anything.

/// A quote is not closed, or a backslash is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a quote is not closed")]
pub struct OpenQuote;

/// The words of `line`: blanks separate, quotes and backslashes protect.
pub fn split(line: &str) -> Result<Vec<String>, OpenQuote> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => words.extend(word.take()),
            '\'' => quote(word.get_or_insert_default(), &mut letters, '\'')?,
            '"' => quote(word.get_or_insert_default(), &mut letters, '"')?,
            '\\' => word.get_or_insert_default().push(letters.next().ok_or(OpenQuote)?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Takes what stands before the closing `mark`. Inside double quotes a backslash protects itself and the quote.
fn quote(word: &mut String, letters: &mut std::str::Chars<'_>, mark: char) -> Result<(), OpenQuote> {
    loop {
        match letters.next().ok_or(OpenQuote)? {
            letter if letter == mark => return Ok(()),
            '\\' if mark == '"' => match letters.next().ok_or(OpenQuote)? {
                letter @ ('"' | '\\' | '$' | '`') => word.push(letter),
                letter => word.extend(['\\', letter]),
            },
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-43
    #[test]
    fn words_are_split_as_in_a_shell() {
        let line = r#" ping  -c 3 'a b' "c \"d\" \n" e\ f '' x'y'"z" "#;
        let words = ["ping", "-c", "3", "a b", "c \"d\" \\n", "e f", "", "xyz"];
        assert_eq!(split(line).unwrap(), words);
        assert_eq!(split("  ").unwrap(), [""; 0]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        for line in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(split(line), Err(OpenQuote), "{line}");
        }
    }
}
