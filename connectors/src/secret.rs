//! Secrets are named, not written: `env:NAME` or `file:/path` in the configuration, and in the facts made from it, stands
//! for a value that is looked up where it is used. Nothing else is looked up. Only who configures
//! this host may name one: whoever else makes a receiver could have any file of the host sent to himself.

use thiserror::Error;

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("environment variable {0} is not set")]
    Environment(String),
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What a text stands for: the variable's value, the file's content without its last line feed, or itself.
///
/// # Errors
/// [`SecretError`] where the variable is not set or the file cannot be read.
pub fn resolve(text: &str) -> Result<String, SecretError> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| SecretError::Environment(name.to_owned()));
    }
    let Some(path) = text.strip_prefix("file:").filter(|p| !p.starts_with("//")) else { return Ok(text.to_owned()) };
    let content = std::fs::read_to_string(path);
    let mut content = content.map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    if content.ends_with('\n') {
        content.pop();
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_values_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush\n").unwrap();
        assert_eq!(resolve(&format!("file:{}", file.path().display())).unwrap(), "hush");
        assert_eq!(resolve("postgres://a:b@c/d").unwrap(), "postgres://a:b@c/d");
        assert!(matches!(resolve("env:RADARFLOW_NO_SUCH"), Err(SecretError::Environment(_))));
        assert!(matches!(resolve("file:/no/such"), Err(SecretError::File { .. })));
    }
}
