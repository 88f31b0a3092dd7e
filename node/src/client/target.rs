//! The path and query of a request, escaped.

use std::fmt;

use serde_json::{Map, Value};

/// `/services/web/update?version=7`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// The path made of these parts. A slash inside a part stays one: names of images have them.
    pub fn new(parts: &[&str]) -> Self {
        let mut text = String::new();
        for part in parts {
            text.push('/');
            escape(&mut text, part, b"/:@");
        }
        Self { text, has_query: false }
    }

    /// One more parameter.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        escape(&mut self.text, name, b"");
        self.text.push('=');
        escape(&mut self.text, &value.to_string(), b"");
        self
    }

    /// One more parameter, where there is a value.
    pub fn with_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// A switch, where it is on.
    pub fn with_flag(self, name: &str, on: bool) -> Self {
        if on { self.with(name, 1) } else { self }
    }

    /// The filters of a list, where there are any: of one key any value matches, and all keys must.
    pub fn with_filters(self, filters: &[(&str, &str)]) -> Self {
        if filters.is_empty() {
            return self;
        }
        let mut keys = Map::new();
        for (key, value) in filters {
            let values = keys.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            values[*value] = Value::Bool(true);
        }
        self.with("filters", Value::Object(keys))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writes `text` with all but unreserved characters (RFC 3986, section 2.3) and `kept` ones as `%XX`.
fn escape(to: &mut String, text: &str, kept: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_images_keep_their_slashes() {
        let target = Target::new(&["images", "localhost:5000/a/b:1", "json"]);
        assert_eq!(target.to_string(), "/images/localhost:5000/a/b:1/json");
        let target = Target::new(&["services", "a b?c"]).with("version", 7).with("name", "x&y=z");
        assert_eq!(target.to_string(), "/services/a%20b%3Fc?version=7&name=x%26y%3Dz");
    }

    #[test]
    fn absent_values_leave_no_trace() {
        let target =
            Target::new(&["a"]).with_some("t", None::<u32>).with_flag("force", false).with_filters(&[]);
        assert_eq!(target.to_string(), "/a");
        assert_eq!(Target::new(&["a"]).with_flag("force", true).to_string(), "/a?force=1");
    }

    #[test]
    fn filters_are_written_as_maps() {
        let target = Target::new(&["tasks"]).with_filters(&[("name", "a"), ("name", "b"), ("node", "n")]);
        let escaped = "/tasks?filters=%7B%22name%22%3A%7B%22a%22%3Atrue%2C%22b%22%3Atrue%7D%2C%22node%22%3A%7B%22n%22%3Atrue%7D%7D";
        assert_eq!(target.to_string(), escaped);
    }
}
