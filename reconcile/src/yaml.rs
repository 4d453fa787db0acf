//! YAML 1.2: `off` and `n` are words, mistakes have lines.

use serde::de::DeserializeOwned;

/// Reads a document; of one that cannot be read, the line and why.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, (u64, String)> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| (error.location().map_or(1, |at| at.line()), error.without_snippet().to_string()))
}
