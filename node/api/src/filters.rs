//! Filters of lists: `filters={"name":{"web":true}}`, or in the older form `{"name":["web"]}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::failure::Failure;

/// What a list is filtered by. All keys must match; of one key's values, any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// Reads the query parameter; only `known` keys may be used.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Failure> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let read: BTreeMap<String, Values> = serde_json::from_str(text).map_err(|_| {
            Failure::invalid(format!("invalid filter: '{text}' is not a JSON object of filters"))
        })?;
        let mut filters = BTreeMap::new();
        for (key, values) in read {
            if !known.contains(&key.as_str()) {
                return Err(Failure::invalid(format!("invalid filter '{key}'")));
            }
            let values = match values {
                Values::Map(map) => map.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
                Values::List(list) => list,
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// The values of `key`; `None` where it is not filtered by.
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(Vec::as_slice).filter(|values| !values.is_empty())
    }

    /// True where `key` is not filtered by, or `matches` one of its values.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.get(key).is_none_or(|values| values.iter().any(|value| matches(value)))
    }

    /// True where `text` begins with one of the values of `key`: how cluster objects are filtered by id and name.
    pub fn prefix(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.starts_with(value))
    }

    /// True where one of the values of `key` is a part of `name`; `^` and `$` bind it to the ends: how what a host has is
    /// filtered by name.
    pub fn part(&self, key: &str, name: &str) -> bool {
        self.any(key, |pattern| is_part(pattern, name))
    }

    /// True where `text` is one of the values of `key`.
    pub fn exact(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text == value)
    }

    /// True where all labels of `key` are there: `name`, or `name=value`.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).is_none_or(|values| values.iter().all(|value| has_label(labels, value)))
    }

    /// The switch `key`; `None` where it is not filtered by.
    pub fn switch(&self, key: &str) -> Result<Option<bool>, Failure> {
        match self.get(key) {
            None => Ok(None),
            Some([one]) if matches!(one.as_str(), "1" | "true" | "True") => Ok(Some(true)),
            Some([one]) if matches!(one.as_str(), "0" | "false" | "False") => Ok(Some(false)),
            Some(_) => Err(Failure::invalid(format!("invalid filter '{key}': it is true or false"))),
        }
    }
}

/// True if the labels have `wanted`, which is `name` or `name=value`.
pub fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        None => labels.contains_key(wanted),
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
    }
}

fn is_part(pattern: &str, name: &str) -> bool {
    let (from_start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    match (from_start, rest.strip_suffix('$')) {
        (true, Some(exact)) => name == exact,
        (true, None) => name.starts_with(rest),
        (false, Some(end)) => name.ends_with(end),
        (false, None) => name.contains(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTR-04, NET-03
    #[test]
    fn names_match_in_part_unless_they_are_bound() {
        assert!(is_part("eb", "web") && !is_part("ab", "web"));
        assert!(is_part("^web$", "web") && !is_part("^web$", "web.1"));
        assert!(is_part("^we", "web") && !is_part("^eb", "web"));
        assert!(is_part("b$", "web") && !is_part("e$", "web"));
    }

    #[test]
    fn both_encodings_mean_the_same() {
        let known = ["name", "label"];
        let new = Filters::parse(r#"{"name":{"a":true,"b":true,"c":false}}"#, &known);
        let old = Filters::parse(r#"{"name":["a","b"]}"#, &known);
        assert_eq!(new, old);
        let filters = new.unwrap();
        assert!(filters.exact("name", "a") && filters.exact("name", "b") && !filters.exact("name", "c"));
        assert!(filters.prefix("name", "abc") && !filters.prefix("name", "xa"));
        assert!(filters.exact("label", "whatever is not filtered by"));
    }

    #[test]
    fn unknown_keys_and_other_shapes_are_refused() {
        let message = |text| Filters::parse(text, &["id"]).unwrap_err().message;
        assert_eq!(message(r#"{"colour":["red"]}"#), "invalid filter 'colour'");
        assert!(message("[]").starts_with("invalid filter"));
        assert!(message(r#"{"id":7}"#).starts_with("invalid filter"));
        assert_eq!(Filters::parse("", &[]), Ok(Filters::default()));
    }

    #[test]
    fn all_labels_must_be_there() {
        let labels =
            BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), ("gpu".to_owned(), String::new())]);
        let filter = |text: &str| Filters::parse(text, &["label"]).unwrap().labels("label", &labels);
        assert!(filter(r#"{"label":["disk=ssd","gpu"]}"#));
        assert!(!filter(r#"{"label":["disk=ssd","red"]}"#));
        assert!(!filter(r#"{"label":["disk=hdd"]}"#));
        assert!(filter("{}"));
    }
}
