//! Options that several commands have: environment, labels, what a list shows, and those that come later.

use std::{collections::BTreeMap, env, fs, path::Path};

use anyhow::{Context, Result, bail};

use super::table::short_id;

/// Bytes of an environment file.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// `KEY` or `KEY=VALUE`; a key alone has an empty value.
pub fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        bail!("{text}: it has to have the form KEY or KEY=VALUE");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Labels by name; the last of a name counts.
pub fn labels(texts: &[String]) -> Result<BTreeMap<String, String>> {
    texts.iter().map(|text| pair(text)).collect()
}

/// The variables of the files, then those given one by one; the last of a name counts, in the place of the first.
pub fn environment(files: &[impl AsRef<Path>], variables: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        let shown = file.as_ref().display();
        let size = fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
        if size > ENV_FILE_BYTES_MAX {
            bail!("{shown} has {size} bytes; a file of variables has at most {ENV_FILE_BYTES_MAX}");
        }
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        set_variables(&mut all, lines)?;
    }
    set_variables(&mut all, variables.iter().map(String::as_str))?;
    Ok(all)
}

/// Adds variables or replaces those of the same name (SVC-44). One without a value takes this process's (CTR-12),
/// and is left out where there is none.
pub fn set_variables<'a>(all: &mut Vec<String>, added: impl Iterator<Item = &'a str>) -> Result<()> {
    for text in added {
        let name = variable_name(text);
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("invalid environment variable: {text}");
        }
        let text = match (text.contains('='), env::var(text)) {
            (true, _) => text.to_owned(),
            (false, Ok(value)) => format!("{text}={value}"),
            (false, Err(_)) => continue,
        };
        match all.iter_mut().find(|old| variable_name(old) == name) {
            Some(old) => *old = text,
            None => all.push(text),
        }
    }
    Ok(())
}

/// What stands before the `=`.
pub fn variable_name(text: &str) -> &str {
    text.split_once('=').map_or(text, |(name, _)| name)
}

/// What the lists of containers, images and networks have in common.
#[derive(clap::Args, Debug, Default)]
pub struct Listing {
    /// Only those that match, such as name=web (repeatable)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,
    /// Leave nothing out of ids and long texts
    #[arg(long)]
    pub no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
}

impl Listing {
    /// The filters, for a request.
    ///
    /// # Errors
    /// One has another form.
    pub fn filters(&self) -> Result<Vec<(&str, &str)>> {
        self.filters.iter().map(|text| filter(text)).collect()
    }

    /// An id as it is shown.
    pub fn id(&self, id: &str) -> String {
        if self.no_trunc { id.to_owned() } else { short_id(id) }
    }
}

/// A terminal, which people will try and which comes with a next step.
#[derive(clap::Args, Debug)]
pub struct Terminal {
    /// Allocate a terminal (not yet)
    #[arg(short, long, hide = true)]
    tty: bool,
}

impl Terminal {
    /// # Errors
    /// It was asked for.
    pub fn refuse(&self) -> Result<()> {
        refuse_tty(self.tty)
    }
}

/// # Errors
/// A terminal was asked for.
pub fn refuse_tty(tty: bool) -> Result<()> {
    if tty {
        bail!("not yet: terminals (--tty); leave -t out, -i alone connects standard input");
    }
    Ok(())
}

/// `KEY=VALUE` of a `--filter`.
pub fn filter(text: &str) -> Result<(&str, &str)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => bail!("--filter {text}: it has to have the form KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-10, SVC-44
    #[test]
    fn variables_replace_those_of_the_same_name() {
        let mut all = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_variables(&mut all, ["B=3", "C=x=y", "A="].into_iter()).unwrap();
        assert_eq!(all, ["A=", "B=3", "C=x=y"]);
        assert!(set_variables(&mut all, ["=x"].into_iter()).is_err());
        assert!(set_variables(&mut all, ["a b=x"].into_iter()).is_err());
    }

    /// CTR-12
    #[test]
    fn a_variable_without_a_value_is_that_of_the_client() {
        let path = env::var("PATH").unwrap();
        let mut all = Vec::new();
        set_variables(&mut all, ["PATH", "COVEY_TEST_IS_NOT_SET"].into_iter()).unwrap();
        assert_eq!(all, [format!("PATH={path}")]);
    }

    /// SVC-10
    #[test]
    fn files_come_first_and_may_have_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# the database\nDB=one\n\nUSER=\"x y\"\n").unwrap();
        let all = environment(&[file.path()], &["DB=two".to_owned()]).unwrap();
        assert_eq!(all, ["DB=two", "USER=\"x y\""]);
        let error = environment(&[Path::new("/nonexistent")], &[]).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"));
    }

    /// SVC-11, NOD-21
    #[test]
    fn a_label_may_have_no_value() {
        let texts = ["a=b=c", "gpu"].map(str::to_owned);
        assert_eq!(
            labels(&texts).unwrap(),
            BTreeMap::from([("a".into(), "b=c".into()), ("gpu".into(), String::new())])
        );
        assert!(labels(&["=x".to_owned()]).is_err());
    }
}
