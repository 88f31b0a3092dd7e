//! JSON for people: laid out anew, with every field in its order and every number as the daemon wrote it.

use serde_json::value::RawValue;

/// Blanks of a level.
const INDENT: &str = "    ";

/// A list of these values, one field a line.
pub fn list(values: &[Box<RawValue>]) -> String {
    let values: Vec<_> = values.iter().map(|value| value.get()).collect();
    lay_out(&format!("[{}]", values.join(",")))
}

/// `text` is valid JSON.
fn lay_out(text: &str) -> String {
    let (mut out, mut depth, mut letters) =
        (String::with_capacity(2 * text.len()), 0_usize, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                out.push('"');
                string(&mut out, &mut letters);
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => out.push(letter),
        }
    }
    out
}

/// Copies the rest of a string, its closing quote included.
fn string(out: &mut String, letters: &mut impl Iterator<Item = char>) {
    while let Some(letter) = letters.next() {
        out.push(letter);
        match letter {
            '"' => return,
            '\\' => out.extend(letters.next()),
            _ => {}
        }
    }
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str(INDENT));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-30
    #[test]
    fn fields_keep_their_order_and_numbers_their_digits() {
        let value = RawValue::from_string(
            r#"{"b": [1,{}], "a":18446744073709551616.10, "c":"x\"{,:[\\","d":[ ]}"#.into(),
        );
        let expected = r#"[
    {
        "b": [
            1,
            {}
        ],
        "a": 18446744073709551616.10,
        "c": "x\"{,:[\\",
        "d": []
    }
]"#;
        assert_eq!(list(&[value.unwrap()]), expected);
        assert_eq!(list(&[]), "[]");
    }
}
